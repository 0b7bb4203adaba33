package skbtrace_test

import (
	"context"
	"encoding/binary"
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
	"golang.org/x/sys/unix"

	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// routed is a client and a server with a router between them that has tables.
type routed struct {
	client, router, server *netns.NS
}

const (
	clientAddr = "10.1.0.2"
	serverAddr = "10.2.0.2"
	virtual    = "10.96.0.1" // what the router rewrites
)

func newRouted(t *testing.T) routed {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	r := routed{testnet.NewNS(t), testnet.NewNS(t), testnet.NewNS(t)}
	testnet.Wire(t, r.client, "eth0", clientAddr+"/24", r.router, "left", "10.1.0.1/24")
	testnet.Wire(t, r.server, "eth0", serverAddr+"/24", r.router, "right", "10.2.0.1/24")
	check(t, in(t, r.client, "ip", "route", "add", "default", "via", "10.1.0.1"))
	check(t, in(t, r.server, "ip", "route", "add", "default", "via", "10.2.0.1"))
	check(t, in(t, r.router, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
	return r
}

func (r routed) spaces() map[string]*netns.NS {
	return map[string]*netns.NS{"client": r.client, "router": r.router, "server": r.server}
}

func (r routed) open(t *testing.T, flows ...skbtrace.Flow) *skbtrace.Tracer {
	t.Helper()
	return open(t, skbtrace.Options{Namespaces: []*netns.NS{r.client, r.router, r.server}, Flows: flows})
}

// rule adds a rule to the router's legacy tables.
func (r routed) rule(t *testing.T, rule string) {
	t.Helper()
	cmd := exec.Command("iptables-legacy", strings.Fields(rule)...)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
	check(t, r.router.Do(func() error {
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %s", cmd, out)
		}
		return err
	}))
}

// serve answers connections to the server's port with what they send.
func (r routed) serve(t *testing.T, port string) {
	t.Helper()
	var l net.Listener
	check(t, r.server.Do(func() error {
		var err error
		l, err = net.Listen("tcp4", serverAddr+":"+port)
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close() //nolint:errcheck // scratch
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// dial connects from the client, for a bounded time.
func (r routed) dial(to string) (net.Conn, error) {
	var c net.Conn
	err := r.client.Do(func() error {
		var err error
		c, err = net.DialTimeout("tcp4", to, 5*time.Second)
		return err
	})
	return c, err
}

// sendSYN sends one connection request that is not repeated.
func (r routed) sendSYN(t *testing.T, port int) {
	t.Helper()
	check(t, r.client.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(serverAddr).As4()})
		if err == unix.EINPROGRESS { //nolint:errorlint // an errno
			return nil
		}
		return err
	}))
}

func collect(t *testing.T, tr *skbtrace.Tracer, done func([]skbtrace.Event) bool) []skbtrace.Event {
	t.Helper()
	events, err := tr.Collect(context.Background(), quiet, done)
	check(t, err)
	if n := tr.Lost(); n != 0 {
		t.Errorf("%d events were lost", n)
	}
	return events
}

// A rule of table filter drops a connection request: the last that is seen of it
// lies right before that table.
func TestDropIsSeenWhereItHappens(t *testing.T) {
	r := newRouted(t)
	r.rule(t, "-t raw -A PREROUTING -p tcp --dport 9") // makes the table
	r.rule(t, "-t mangle -A FORWARD -p tcp --dport 9")
	r.rule(t, "-A FORWARD -p tcp --dport 81 -j DROP")
	tr := r.open(t, flow("tcp", clientAddr+":0", serverAddr+":81"))
	r.sendSYN(t, 81)
	dropped := func(all []skbtrace.Event) bool { return all[len(all)-1].Point == skbtrace.Free }
	events := collect(t, tr, dropped)
	var out []string
	for _, n := range names(t, events, r.spaces()) {
		if strings.HasPrefix(n, "router ") {
			out = append(out, strings.TrimPrefix(n, "router "))
		}
	}
	want := []string{
		"rx left", "receive left",
		"prerouting/-450", "prerouting/-299", "prerouting/-199", "prerouting/-149", "prerouting/450",
		"forward/-450", "forward/-149",
		"free NETFILTER_DROP nf_hook_slow",
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if got := skbtrace.Behind("forward", -149, true); !slices.Equal(got, []string{"filter"}) {
		t.Errorf("behind the last point is %v, want filter", got)
	}
}

// endpoints are the addresses and ports of an event's packet.
func endpoints(e skbtrace.Event) (src, dst netip.AddrPort) {
	d := e.Data
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[12:16])), binary.BigEndian.Uint16(d[20:])),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[16:20])), binary.BigEndian.Uint16(d[22:]))
}

// What a wanted packet is rewritten to is followed, and its answers are; other
// connections between the same hosts are not.
func TestRewrittenPacketsAreFollowed(t *testing.T) {
	r := newRouted(t)
	r.rule(t, "-t nat -A PREROUTING -d "+virtual+" -p tcp --dport 80 -j DNAT --to "+serverAddr+":8080")
	r.rule(t, "-t nat -A POSTROUTING -d "+serverAddr+" -p tcp --dport 8080 -j MASQUERADE")
	r.serve(t, "8080")
	r.serve(t, "7")
	other, err := r.dial(serverAddr + ":7") // masqueraded not, wanted not
	check(t, err)
	defer other.Close() //nolint:errcheck // scratch
	same, err := r.dial(serverAddr + ":8080")
	check(t, err)
	defer same.Close() //nolint:errcheck // scratch

	tr := r.open(t, flow("tcp", clientAddr+":0", virtual+":80"))
	talk := func(c net.Conn) {
		_, err := c.Write([]byte("hello"))
		check(t, err)
		_, err = io.ReadFull(c, make([]byte, 5))
		check(t, err)
	}
	wanted, err := r.dial(virtual + ":80")
	check(t, err)
	defer wanted.Close() //nolint:errcheck // scratch
	for _, c := range []net.Conn{other, same, wanted, other, same} {
		talk(c)
	}
	events := collect(t, tr, nil)

	client := wanted.LocalAddr().(*net.TCPAddr).AddrPort()
	backend := netip.MustParseAddrPort(serverAddr + ":8080")
	service := netip.MustParseAddrPort(virtual + ":80")
	gateway := netip.MustParseAddr("10.2.0.1")
	seen := map[string]bool{}
	for i, e := range events {
		src, dst := endpoints(e)
		way := "?"
		switch {
		case src == client && dst == service:
			way = "request to the service"
		case src == client && dst == backend:
			way = "request rewritten once"
		case src.Addr() == gateway && dst == backend:
			way = "request rewritten twice"
		case src == backend && dst.Addr() == gateway:
			way = "answer to the router"
		case src == backend && dst == client, src == service && dst == client:
			way = "answer to the client"
		default:
			t.Errorf("event %d is of %s → %s", i, src, dst)
		}
		seen[names(t, events[i:i+1], r.spaces())[0]+": "+way] = true
	}
	for _, want := range []string{
		"client output/-450: request to the service", "router prerouting/-149: request to the service",
		"router prerouting/450: request rewritten once", "router postrouting/-149: request rewritten once",
		"router queue right: request rewritten twice", "server input/450: request rewritten twice",
		"server output/-450: answer to the router", "router receive right: answer to the router",
		"client input/450: answer to the client",
	} {
		if !seen[want] {
			t.Errorf("not seen: %s", want)
		}
	}
}

// A flow that is added later is wanted from then on, and each fragment of its
// packets is.
func TestAddedFlowAndFragments(t *testing.T) {
	r := newRouted(t)
	tr := r.open(t)
	ping := func() { check(t, in(t, r.client, "ping", "-c1", "-W5", "-s3000", serverAddr)) }
	ping()
	if events := collect(t, tr, nil); len(events) != 0 {
		t.Fatalf("nothing was wanted, but %v", names(t, events, r.spaces()))
	}
	check(t, tr.AddFlow(flow("icmp", clientAddr+":0", serverAddr+":0")))
	ping()
	sent := map[string]int{}
	for _, n := range names(t, collect(t, tr, nil), r.spaces()) {
		sent[n]++
	}
	// 3008 bytes in packets of 1480: three each way, on each device.
	for _, want := range []string{"client xmit eth0", "router receive left", "router xmit right", "server xmit eth0", "router receive right", "router xmit left"} {
		if sent[want] != 3 {
			t.Errorf("%s: %d packets, want 3", want, sent[want])
		}
	}
}

// An ICMP error is wanted for the packet that it quotes.
func TestErrorAboutWantedPacket(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	r := newRouted(t)
	tr := r.open(t, flow("icmp", clientAddr+":0", serverAddr+":0"))
	_ = in(t, r.client, "ping", "-c1", "-W1", "-t1", serverAddr) // gets no answer but the error
	events := collect(t, tr, nil)
	var request, failure []string
	for i, n := range names(t, events, r.spaces()) {
		if e := events[i]; e.Data[20] == 11 { // ICMP time exceeded
			failure = append(failure, n)
		} else if strings.HasPrefix(n, "router") {
			if e.Point == skbtrace.ICMPSend && (e.ICMPType != 11 || e.ICMPCode != 0) {
				t.Errorf("ICMP error %d/%d, want 11/0", e.ICMPType, e.ICMPCode)
			}
			request = append(request, n)
		}
	}
	want := []string{
		"router rx left", "router receive left", "router prerouting/-450", "router prerouting/450",
		"router icmp_send left", "router free IP_INHDR ip_forward", // its label too_many_hops
	}
	if diff := cmp.Diff(want, request); diff != "" {
		t.Error(diff)
	}
	for _, want := range []string{"router output/-450", "router xmit left", "client receive eth0", "client input/450"} {
		if !slices.Contains(failure, want) {
			t.Errorf("the error was not seen at %s but at %v", want, failure)
		}
	}
}

// A capture whose buffer is full loses copies, not packets.
func TestCaptureWithoutRoomIsNoDrop(t *testing.T) {
	r := newRouted(t)
	check(t, r.server.Do(func() error {
		const allBigEndian = unix.ETH_P_ALL << 8
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, allBigEndian)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // the kernel's least: a few packets
	}))
	tr := r.open(t, flow("icmp", clientAddr+":0", serverAddr+":0"))
	check(t, in(t, r.client, "ping", "-c20", "-i0.01", "-W5", serverAddr))
	for _, e := range collect(t, tr, nil) {
		if e.Point == skbtrace.Free && e.Reason != "NO_SOCKET" { // answers have gone to ping's raw socket
			t.Errorf("a packet was dropped: %s in %s", e.Reason, e.Location)
		}
	}
}

// Two tracers in the same namespaces see the same.
func TestTwoTracers(t *testing.T) {
	r := newRouted(t)
	tracers := []*skbtrace.Tracer{r.open(t, flow("icmp", clientAddr+":0", serverAddr+":0")), r.open(t, flow("icmp", clientAddr+":0", serverAddr+":0"))}
	check(t, in(t, r.client, "ping", "-c1", "-W5", serverAddr))
	var seen [2][]string
	for i, tr := range tracers {
		seen[i] = names(t, collect(t, tr, nil), r.spaces())
	}
	if diff := cmp.Diff(seen[0], seen[1]); diff != "" || len(seen[0]) == 0 {
		t.Error(diff)
	}
}
