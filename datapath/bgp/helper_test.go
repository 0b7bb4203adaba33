package bgp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
)

// roleEnv makes the test binary play a part when it is run again.
const roleEnv = "SLIPWAY_TEST_BGP_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "speaker":
		if err := bgp.RunSpeaker(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "daemon":
		playDaemon(os.Args[1])
	default:
		os.Exit(m.Run())
	}
}

var (
	accept   = netip.MustParsePrefix("10.65.0.0/16")
	asn      = uint32(64512)
	deadline = 20 * time.Second // for a condition that is sure to come
)

// block is the /26 of node i, 1 and up.
func block(i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("10.65.%d.0/26", i)) }

func addr(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)) }

// fabric is a namespace with one bridge that nodes are plugged into.
type fabric struct {
	t      testing.TB
	ns     *netns.NS
	h      *nl.Handle
	bridge string
	ports  int
}

func newFabric(t testing.TB) *fabric {
	ns := testnet.NewNS(t)
	f := &fabric{t: t, ns: ns, h: testnet.Handle(t, ns)}
	f.addBridge("br0")
	return f
}

func (f *fabric) addBridge(name string) {
	f.t.Helper()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	must(f.t, f.h.LinkAdd(br))
	must(f.t, f.h.LinkSetUp(br))
	f.bridge = name
}

// node makes a namespace with one address on the fabric's latest bridge.
func (f *fabric) node(address string) *netns.NS {
	f.t.Helper()
	ns := testnet.NewNS(f.t)
	f.plug(ns, "eth0", address)
	return ns
}

func (f *fabric) plug(ns *netns.NS, dev, address string) {
	f.t.Helper()
	f.ports++
	port := fmt.Sprintf("p%d", f.ports)
	testnet.Wire(f.t, f.ns, port, "", ns, dev, address)
	l, err := f.h.LinkByName(port)
	must(f.t, err)
	br, err := f.h.LinkByName(f.bridge)
	must(f.t, err)
	must(f.t, f.h.LinkSetMaster(l, br))
}

// node is one speaker and where it runs.
type node struct {
	t   testing.TB
	ns  *netns.NS
	h   *nl.Handle
	cfg datapath.Speaker
	p   *bgp.Process
}

// mesh plugs n nodes into one bridge, each configured to peer with all others;
// the one with the higher number dials.
func mesh(t testing.TB, n int) []*node {
	f := newFabric(t)
	var nodes []*node
	for i := 1; i <= n; i++ {
		ns := f.node(fmt.Sprintf("%s/24", addr(i)))
		nodes = append(nodes, &node{t: t, ns: ns, h: testnet.Handle(t, ns), cfg: meshConfig(i, n)})
	}
	return nodes
}

func meshConfig(i, n int) datapath.Speaker {
	cfg := config(i)
	for j := 1; j <= n; j++ {
		if j != i {
			cfg.Peers = append(cfg.Peers, peer(j, i < j))
		}
	}
	return cfg
}

func config(i int) datapath.Speaker {
	return datapath.Speaker{ASN: asn, RouterID: addr(i), Listen: addr(i), Announce: []netip.Prefix{block(i)}, Accept: accept}
}

func peer(i int, passive bool) datapath.Peer {
	return datapath.Peer{Name: fmt.Sprintf("node%d", i), Address: addr(i), ASN: asn, Passive: passive}
}

// start runs the speaker and configures it.
func (n *node) start() {
	n.t.Helper()
	p, err := startIn(context.Background(), n.t, n.ns)
	must(n.t, err)
	n.p = p
	must(n.t, p.Configure(n.cfg))
}

func startIn(ctx context.Context, t testing.TB, ns *netns.NS) (*bgp.Process, error) {
	p, err := bgp.Start(ctx, ns, []string{"/proc/self/exe"}, append(os.Environ(), roleEnv+"=speaker"), logTo(t))
	if err == nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
			defer cancel()
			_ = p.Stop(ctx) // tests that care have stopped it already
		})
	}
	return p, err
}

// logTo keeps what the speaker says and shows it if the test fails.
func logTo(t testing.TB) *slog.Logger {
	var buf testnet.Buffer
	t.Cleanup(func() {
		if t.Failed() && buf.String() != "" {
			t.Logf("speaker:\n%s", buf.String())
		}
	})
	return slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// wait fails the test if the speaker does not get there.
func (n *node) wait(what string, want func(bgp.Status) bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := n.p.Wait(ctx, want); err != nil {
		n.t.Fatalf("%s: %v\nroutes: %v", what, err, n.p.Status().Routes)
	}
}

// stop shuts the speaker down gracefully.
func (n *node) stop() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	must(n.t, n.p.Stop(ctx))
}

// kill ends the speaker as a crash would.
func (n *node) kill() {
	n.t.Helper()
	must(n.t, unix.Kill(n.p.Pid(), unix.SIGKILL))
	<-n.p.Done()
}

func synced(sessions, routes int) func(bgp.Status) bool {
	return func(s bgp.Status) bool {
		return s.Sync.Settled && s.Sync.Established == sessions && s.Sync.Routes == routes
	}
}

// routes lists the learnt routes that the kernel has, as `ip route` would.
func (n *node) routes() []string { return kernelRoutes(n.t, n.h) }

func kernelRoutes(t testing.TB, h *nl.Handle) []string {
	t.Helper()
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BIRD}
	list, err := nl.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	})
	must(t, err)
	out := []string{}
	for _, r := range list {
		var b strings.Builder
		switch r.Type {
		case unix.RTN_UNICAST:
		case unix.RTN_BLACKHOLE:
			b.WriteString("blackhole ")
		default:
			fmt.Fprintf(&b, "type %d ", r.Type)
		}
		b.WriteString(r.Dst.String())
		if r.Gw != nil {
			fmt.Fprintf(&b, " via %s", r.Gw)
		}
		if l, err := h.LinkByIndex(r.LinkIndex); err == nil && r.Type == unix.RTN_UNICAST {
			fmt.Fprintf(&b, " dev %s", l.Attrs().Name)
		}
		if r.Src != nil {
			fmt.Fprintf(&b, " src %s", r.Src)
		}
		if r.Flags&int(netlink.FLAG_ONLINK) != 0 {
			b.WriteString(" onlink")
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return out
}

// direct are the routes of node i in a mesh of n: every other block through
// its own node.
func direct(i, n int) []string {
	out := []string{}
	for j := 1; j <= n; j++ {
		if j != i {
			out = append(out, fmt.Sprintf("%s via %s dev eth0", block(j), addr(j)))
		}
	}
	slices.Sort(out)
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls cond, which explains itself when it does not hold.
func eventually(t testing.TB, what string, cond func() (bool, string)) {
	t.Helper()
	testnet.Eventually(t, deadline, what, cond)
}
