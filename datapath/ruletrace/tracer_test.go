package ruletrace_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/ruletrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// quiet is how long nothing must come for a trace to be over.
const quiet = 100 * time.Millisecond

const (
	clientAddr = "10.1.0.2"
	serverAddr = "10.2.0.2"
	virtual    = "10.96.0.1" // what the router rewrites
	port       = 8080
)

// routed is a client and a server with a router between them that has tables.
type routed struct {
	client, router, server *netns.NS
	tool                   string // iptables' name
}

func newRouted(t *testing.T, tool string) routed {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.Capability(tool))
	r := routed{testnet.NewNS(t), testnet.NewNS(t), testnet.NewNS(t), tool}
	testnet.Wire(t, r.client, "eth0", clientAddr+"/24", r.router, "left", "10.1.0.1/24")
	testnet.Wire(t, r.server, "eth0", serverAddr+"/24", r.router, "right", "10.2.0.1/24")
	run(t, r.client, "ip route add default via 10.1.0.1")
	run(t, r.server, "ip route add default via 10.2.0.1")
	run(t, r.router, "sysctl -qw net.ipv4.ip_forward=1")
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, ns *netns.NS, command string) {
	t.Helper()
	args := strings.Fields(command)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
	check(t, ns.Do(func() error {
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
		return nil
	}))
}

func (r routed) rule(t *testing.T, rule string) {
	t.Helper()
	run(t, r.router, r.tool+" "+rule)
}

// serve answers connections to the server with what they send.
func (r routed) serve(t *testing.T) {
	t.Helper()
	var l net.Listener
	check(t, r.server.Do(func() error {
		var err error
		l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", serverAddr, port))
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
}

// dial connects from a port of the client's.
func (r routed) dial(t *testing.T, from uint16, to string) {
	t.Helper()
	check(t, r.client.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(clientAddr), from))}
		c, err := d.Dial("tcp4", to)
		if err != nil {
			return err
		}
		return c.Close()
	}))
}

// open traces the connection of the client's port.
func (r routed) open(t *testing.T, from uint16) *ruletrace.Tracer {
	t.Helper()
	f := datapath.Flow{
		Proto: "tcp",
		Src:   netip.AddrPortFrom(netip.MustParseAddr(clientAddr), from), Dst: netip.MustParseAddrPort(virtual + ":80"),
	}
	tr, err := ruletrace.Open([]*netns.NS{r.client, r.router, r.server}, []datapath.Flow{f}, datapath.Ports{VXLAN: 8472, UDP: 8285})
	check(t, err)
	t.Cleanup(func() { check(t, tr.Close()) })
	return tr
}

// requests are the hits of connection requests in a namespace, in short.
func requests(t *testing.T, hits []ruletrace.Hit, ns *netns.NS) []string {
	t.Helper()
	inode, err := ns.Inode()
	check(t, err)
	var out []string
	for _, h := range hits {
		const syn, ack = 2, 16
		if flags := h.Data[20+13]; h.Inode == inode && flags&syn != 0 && flags&ack == 0 {
			out = append(out, fmt.Sprintf("%s %s %s:%d %s>%s %s", h.Table, h.Chain, h.Kind, h.Number, h.In, h.Out, h.Hook))
		}
	}
	return out
}

// The rules that a connection request comes to, by their numbers, in order.
func TestRulesAreNamed(t *testing.T) {
	common := []string{
		"raw PREROUTING policy:2 left> prerouting",
		"mangle PREROUTING rule:1 left> prerouting",
		"mangle PREROUTING policy:2 left> prerouting",
		"nat PREROUTING rule:2 left> prerouting",
		"nat SVC:1 rule:1 left> prerouting",
		"filter FORWARD rule:3 left>right forward",
		"filter WATCH return:2 left>right forward",
		"filter FORWARD rule:4 left>right forward",
		"nat POSTROUTING rule:1 left>right postrouting",
	}
	// Legacy table mangle has all chains, with policies, as soon as it has one.
	legacy := slices.Insert(slices.Clone(common), 5, "mangle FORWARD policy:1 left>right forward")
	legacy = slices.Insert(legacy, 9, "mangle POSTROUTING policy:1 left>right postrouting")
	for tool, want := range map[string][]string{"iptables-legacy": legacy, "iptables-nft": common} {
		t.Run(tool, func(t *testing.T) {
			r := newRouted(t, tool)
			for _, rule := range []string{
				"-t raw -A PREROUTING -p udp",
				"-t mangle -A PREROUTING -p tcp -j MARK --set-mark 7",
				"-t nat -N SVC:1",
				"-t nat -A SVC:1 -p tcp --dport 80 -j DNAT --to " + serverAddr + ":8080",
				"-t nat -A PREROUTING -p udp -j SVC:1",
				"-t nat -A PREROUTING -d " + virtual + " -j SVC:1",
				"-t nat -A POSTROUTING -p tcp -j MASQUERADE",
				"-N WATCH",
				"-A WATCH -p udp",
				"-A FORWARD -p udp -j DROP",
				"-A FORWARD -p icmp -j DROP",
				"-A FORWARD -p tcp -j WATCH",
				"-A FORWARD -p tcp -j ACCEPT",
			} {
				r.rule(t, rule)
			}
			r.serve(t)
			tr := r.open(t, 40001)
			r.dial(t, 40001, virtual+":80")
			r.dial(t, 40002, virtual+":80") // not wanted
			hits, err := tr.Hits(quiet)
			check(t, err)
			if diff := cmp.Diff(want, requests(t, hits, r.router)); diff != "" {
				t.Error(diff)
			}
			for _, h := range hits {
				if from, to := binary.BigEndian.Uint16(h.Data[20:]), binary.BigEndian.Uint16(h.Data[22:]); from != 40001 && to != 40001 {
					t.Errorf("a hit of %d → %d, which is not wanted", from, to)
				}
				if h.Table == "filter" && h.Mark != 7 {
					t.Errorf("%s %s has mark %d, want 7", h.Table, h.Chain, h.Mark)
				}
			}
			if n := tr.Lost(); n != 0 {
				t.Errorf("hits were lost %d times", n)
			}
		})
	}
}

// A flow that is added later is wanted from then on.
func TestAddedFlow(t *testing.T) {
	r := newRouted(t, "iptables-legacy")
	r.rule(t, "-A FORWARD -p tcp -j ACCEPT")
	r.serve(t)
	tr, err := ruletrace.Open([]*netns.NS{r.router}, nil, datapath.Ports{})
	check(t, err)
	defer tr.Close() //nolint:errcheck // scratch
	to := fmt.Sprintf("%s:%d", serverAddr, port)
	r.dial(t, 40001, to)
	check(t, tr.AddFlow(datapath.Flow{Proto: "tcp", Src: netip.AddrPortFrom(netip.Addr{}, 40002)}))
	r.dial(t, 40002, to)
	hits, err := tr.Hits(quiet)
	check(t, err)
	if diff := cmp.Diff([]string{"filter FORWARD rule:1 left>right forward"}, requests(t, hits, r.router)); diff != "" {
		t.Error(diff)
	}
}

// A packet in a tunnel is wanted for what it carries: the rules for the carrying
// packet are named.
func TestCarryingPacketsAreTraced(t *testing.T) {
	testnet.Need(t, testnet.VXLAN, testnet.Ping)
	r := newRouted(t, "iptables-legacy")
	r.rule(t, "-A INPUT -p tcp")
	r.rule(t, "-A INPUT -p udp --dport 8472 -j ACCEPT")
	const device = "ip link add vxlan0 type vxlan id 1 dstport 8472 remote "
	run(t, r.client, device+"10.1.0.1")
	run(t, r.router, device+clientAddr)
	run(t, r.client, "ip addr add 10.3.0.1/24 dev vxlan0")
	run(t, r.router, "ip addr add 10.3.0.2/24 dev vxlan0")
	run(t, r.client, "ip link set vxlan0 up")
	run(t, r.router, "ip link set vxlan0 up")
	run(t, r.client, "ping -c1 -W5 10.3.0.2") // neighbours are known
	f := datapath.Flow{Proto: "icmp", Src: netip.MustParseAddrPort("10.3.0.1:0"), Dst: netip.MustParseAddrPort("10.3.0.2:0")}
	tr, err := ruletrace.Open([]*netns.NS{r.router}, []datapath.Flow{f}, datapath.Ports{VXLAN: 8472})
	check(t, err)
	defer tr.Close()                          //nolint:errcheck // scratch
	run(t, r.client, "ping -c1 -W5 10.1.0.1") // not wanted
	run(t, r.client, "ping -c1 -W5 10.3.0.2")
	hits, err := tr.Hits(quiet)
	check(t, err)
	var got []string
	for _, h := range hits {
		got = append(got, fmt.Sprintf("%s %s %s:%d %s>%s", h.Table, h.Chain, h.Kind, h.Number, h.In, h.Out))
	}
	want := []string{
		"filter INPUT rule:2 left>", "filter INPUT policy:3 vxlan0>", // the request, with and without its carrier
		"filter OUTPUT policy:1 >vxlan0", "filter OUTPUT policy:1 >left", // the answer
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
