package observe

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// quiet is how long a capture listens on after the last packet. It decides
// nothing about success: the answers have come before Collect is called.
const quiet = 100 * time.Millisecond

func sysctl(t *testing.T, ns *netns.NS, key, value string) {
	t.Helper()
	err := ns.Do(func() error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0) })
	if err != nil {
		t.Fatal(err)
	}
}

func route(t *testing.T, ns *netns.NS, dst, via, dev string) {
	t.Helper()
	h := testnet.Handle(t, ns)
	l, err := h.LinkByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := net.ParseCIDR(dst)
	if err != nil {
		t.Fatal(err)
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: n}
	if via != "" {
		r.Gw = net.ParseIP(via)
	}
	if err := h.RouteAdd(r); err != nil {
		t.Fatalf("route %s via %s dev %s: %v", dst, via, dev, err)
	}
}

func iptables(t *testing.T, ns *netns.NS, rule string) {
	t.Helper()
	testnet.Need(t, testnet.IPTables)
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
	_, err := run.Cmd{NS: ns, Name: "iptables-legacy", Args: strings.Fields(rule), Env: env}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
}

// echo answers datagrams at an address until the test ends.
func echo(t *testing.T, ns *netns.NS, at string) {
	t.Helper()
	var conn net.PacketConn
	err := ns.Do(func() error {
		var err error
		conn, err = net.ListenPacket("udp4", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
}

// listen accepts TCP connections at an address until the test ends.
func listen(t *testing.T, ns *netns.NS, at string) {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() error {
		var err error
		l, err = net.Listen("tcp4", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// observe sends a probe, waits for its answer, and returns what was seen.
func observe(t *testing.T, places []Place, from *netns.NS, protocol Protocol, to string) []Event {
	t.Helper()
	c, err := Open(places, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	p, err := Send(from, protocol, netip.MustParseAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // test
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	events, err := c.Collect(ctx, p.Match, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if c.Dropped() != 0 {
		t.Errorf("%d packets were dropped", c.Dropped())
	}
	return events
}

// lines writes steps without what differs from run to run: times, and the
// client's port, which is called CLIENT.
func lines(steps []Step) []string {
	var out []string
	client := ""
	for _, s := range steps {
		ip := s.Packet.IP
		if client == "" {
			client = fmt.Sprintf(":%d", ip.SrcPort)
		}
		way := "request"
		if s.Reply {
			way = "reply"
		}
		text := fmt.Sprintf("%s %s %s %s %s>%s %s ttl %d", way, s.Place.Label, s.Device, s.Direction,
			endpoint(ip, ip.Source()), endpoint(ip, ip.Destination()), Describe(ip), ip.TTL)
		text = strings.ReplaceAll(text, client+">", ":CLIENT>")
		text = strings.ReplaceAll(text, client+" ", ":CLIENT ")
		if s.Packet.Encap != NoEncap {
			text += fmt.Sprintf(" in %s %s>%s", s.Packet.Encap, s.Packet.Outer.Src, s.Packet.Outer.Dst)
		}
		for _, c := range s.Changes {
			text += " " + string(c.Kind)
		}
		out = append(out, text)
	}
	return out
}

func wantLines(t *testing.T, steps []Step, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, lines(steps)); diff != "" {
		var b bytes.Buffer
		_ = Render(&b, steps, RenderOptions{})
		t.Errorf("path (-want +got):\n%s\n%s", diff, b.String())
	}
}

// routed is client — router — server.
func routed(t *testing.T) (client, router, server *netns.NS, places []Place) {
	client, router, server = testnet.NewNS(t), testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, client, "eth0", "10.1.0.2/24", router, "left", "10.1.0.1/24")
	testnet.Wire(t, router, "right", "10.2.0.1/24", server, "eth0", "10.2.0.2/24")
	sysctl(t, router, "net/ipv4/ip_forward", "1")
	route(t, client, "0.0.0.0/0", "10.1.0.1", "eth0")
	route(t, server, "0.0.0.0/0", "10.2.0.1", "eth0")
	return client, router, server, []Place{{Label: "client", NS: client}, {Label: "router", NS: router}, {Label: "server", NS: server}}
}

func TestRoutedUDP(t *testing.T) {
	client, _, server, places := routed(t)
	echo(t, server, "10.2.0.2:7")
	steps := Path(observe(t, places, client, ProbeUDP, "10.2.0.2:7"))
	wantLines(t, steps,
		"request client eth0 out 10.1.0.2:CLIENT>10.2.0.2:7 UDP ttl 64",
		"request router left in 10.1.0.2:CLIENT>10.2.0.2:7 UDP ttl 64",
		"request router right out 10.1.0.2:CLIENT>10.2.0.2:7 UDP ttl 63 ttl",
		"request server eth0 in 10.1.0.2:CLIENT>10.2.0.2:7 UDP ttl 63",
		"reply server eth0 out 10.2.0.2:7>10.1.0.2:CLIENT UDP ttl 64",
		"reply router right in 10.2.0.2:7>10.1.0.2:CLIENT UDP ttl 64",
		"reply router left out 10.2.0.2:7>10.1.0.2:CLIENT UDP ttl 63 ttl",
		"reply client eth0 in 10.2.0.2:7>10.1.0.2:CLIENT UDP ttl 63",
	)
	for i, s := range steps {
		if s.Time.Before(steps[0].Time) || s.Since < 0 {
			t.Errorf("step %d goes back in time: %v after the start, %v after the one before", i+1, s.SinceStart, s.Since)
		}
	}
}

// The service address is translated to the server, and the client hidden
// behind the router, as a node does with a NodePort.
func TestTranslatedTCP(t *testing.T) {
	client, router, server, places := routed(t)
	iptables(t, router, "-t nat -A PREROUTING -d 10.96.0.10 -p tcp --dport 8080 -j DNAT --to-destination 10.2.0.2:80")
	iptables(t, router, "-t nat -A POSTROUTING -o right -j MASQUERADE")
	listen(t, server, "10.2.0.2:80")
	// The masqueraded port is the client's own as long as it is free.
	wantLines(t, Path(observe(t, places, client, ProbeTCP, "10.96.0.10:8080")),
		"request client eth0 out 10.1.0.2:CLIENT>10.96.0.10:8080 TCP SYN ttl 64",
		"request router left in 10.1.0.2:CLIENT>10.96.0.10:8080 TCP SYN ttl 64",
		"request router right out 10.2.0.1:CLIENT>10.2.0.2:80 TCP SYN ttl 63 dnat snat ttl",
		"request server eth0 in 10.2.0.1:CLIENT>10.2.0.2:80 TCP SYN ttl 63",
		"reply server eth0 out 10.2.0.2:80>10.2.0.1:CLIENT TCP SYN-ACK ttl 64",
		"reply router right in 10.2.0.2:80>10.2.0.1:CLIENT TCP SYN-ACK ttl 64",
		"reply router left out 10.96.0.10:8080>10.1.0.2:CLIENT TCP SYN-ACK ttl 63 unsnat undnat ttl",
		"reply client eth0 in 10.96.0.10:8080>10.1.0.2:CLIENT TCP SYN-ACK ttl 63",
	)
}

// Translation hides a datagram's conversation even more than a connection's:
// only the marker and the reversed addresses tell what belongs together.
func TestTranslatedUDP(t *testing.T) {
	client, router, server, places := routed(t)
	iptables(t, router, "-t nat -A PREROUTING -d 10.96.0.10 -p udp --dport 53 -j DNAT --to-destination 10.2.0.2:5353")
	iptables(t, router, "-t nat -A POSTROUTING -o right -p udp -j MASQUERADE --to-ports 61000")
	echo(t, server, "10.2.0.2:5353")
	wantLines(t, Path(observe(t, places, client, ProbeUDP, "10.96.0.10:53")),
		"request client eth0 out 10.1.0.2:CLIENT>10.96.0.10:53 UDP ttl 64",
		"request router left in 10.1.0.2:CLIENT>10.96.0.10:53 UDP ttl 64",
		"request router right out 10.2.0.1:61000>10.2.0.2:5353 UDP ttl 63 dnat snat ttl",
		"request server eth0 in 10.2.0.1:61000>10.2.0.2:5353 UDP ttl 63",
		"reply server eth0 out 10.2.0.2:5353>10.2.0.1:61000 UDP ttl 64",
		"reply router right in 10.2.0.2:5353>10.2.0.1:61000 UDP ttl 64",
		"reply router left out 10.96.0.10:53>10.1.0.2:CLIENT UDP ttl 63 unsnat undnat ttl",
		"reply client eth0 in 10.96.0.10:53>10.1.0.2:CLIENT UDP ttl 63",
	)
}

func TestRefusedTCP(t *testing.T) {
	client, _, _, places := routed(t)
	c, err := Open(places, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	p, err := Send(client, ProbeTCP, netip.MustParseAddrPort("10.2.0.2:81"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // test
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := p.Wait(ctx); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a closed port answered %v", err)
	}
	events, err := c.Collect(ctx, p.Match, quiet)
	if err != nil {
		t.Fatal(err)
	}
	steps := Path(events)
	got := lines(steps)
	want := "reply client eth0 in 10.2.0.2:81>10.1.0.2:CLIENT TCP RST-ACK ttl 63"
	if len(got) != 8 || got[7] != want {
		t.Errorf("path of a refused connection ends otherwise than in %q:\n%s", want, strings.Join(got, "\n"))
	}
}

// A packet that nobody answers: the router has no route and says so.
func TestUnreachable(t *testing.T) {
	client, _, _, places := routed(t)
	c, err := Open(places, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	p, err := Send(client, ProbeICMP, netip.MustParseAddrPort("10.99.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // test
	events, err := c.Collect(context.Background(), p.Match, quiet)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, Path(events),
		"request client eth0 out 10.1.0.2>10.99.0.1 ICMP echo request ttl 64",
		"request router left in 10.1.0.2>10.99.0.1 ICMP echo request ttl 64",
		"reply router left out 10.1.0.1>10.1.0.2 ICMP network unreachable ttl 64",
		"reply client eth0 in 10.1.0.1>10.1.0.2 ICMP network unreachable ttl 64",
	)
}

func TestCollectEndsWithContext(t *testing.T) {
	ns := testnet.NewNS(t)
	c, err := Open([]Place{{Label: "empty", NS: ns}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Collect(ctx, Match{}, time.Hour); err == nil {
		t.Error("an ended context gave no error")
	}
}
