package trace_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/topology"
)

// manyWays gives node01 a service of n equally likely endpoints, ports of web-0.
func (n *planned) manyWays(count int) netip.Addr {
	vip := netip.MustParseAddr("10.96.1.1")
	var rules []string
	for i := range count {
		match := ""
		if left := count - i; left > 1 {
			match = fmt.Sprintf(" -m statistic --mode random --probability %.11f", 1/float64(left))
		}
		rules = append(rules, fmt.Sprintf("-A PREROUTING -d %s/32 -p tcp%s -j DNAT --to-destination %s:%d", vip, match, n.podAddress("web-0"), 1000+i))
	}
	n.insert("node01", "nat", rules...)
	return vip
}

func TestAllWaysAreWalked(t *testing.T) {
	n := plan(t, topology.CalicoBGP)
	got := n.predict("default/client", tcp(n.manyWays(50), 80))
	sum, ends := 0.0, map[netip.AddrPort]bool{}
	for _, b := range got.Branches {
		sum += b.Probability
		ends[b.Endpoint] = true
		if math.Abs(b.Probability-0.02) > 1e-5 {
			t.Errorf("%s has probability %g", b.Endpoint, b.Probability)
		}
		if last := b.Hops[len(b.Hops)-1].Probability; last != b.Probability {
			t.Errorf("%s: %g at the last hop, %g in all", b.Endpoint, last, b.Probability)
		}
	}
	if len(ends) != 50 || math.Abs(sum-1) > 1e-6 {
		t.Errorf("%d endpoints, in all %g", len(ends), sum)
	}
}

func TestWhatIsLeftOutIsSaid(t *testing.T) {
	n := plan(t, topology.CalicoBGP)
	got := trace.Predict(n, "default/client", tcp(n.manyWays(50), 80), trace.Options{MaxBranches: 20})
	if len(got.Branches) != 20 {
		t.Errorf("%d branches, want 20", len(got.Branches))
	}
	if notes := strings.Join(got.Notes, "\n"); !strings.Contains(notes, "30 less likely ways, together 0.6 of all packets") {
		t.Errorf("notes %q", notes)
	}
}

// TestLikeliestFirst is an old tutorial's mistake: two rules of one half each
// leave a quarter for the third endpoint.
func TestLikeliestFirst(t *testing.T) {
	n := plan(t, topology.CalicoBGP)
	vip := netip.MustParseAddr("10.96.1.1")
	dnat := func(match string, port int) string {
		return fmt.Sprintf("-A PREROUTING -d %s/32 -p tcp%s -j DNAT --to-destination %s:%d", vip, match, n.podAddress("web-0"), port)
	}
	half := " -m statistic --mode random --probability 0.50000000000"
	n.insert("node01", "nat", dnat(half, 1), dnat(half, 2), dnat("", 3))
	got := n.predict("default/client", tcp(vip, 80))
	for i, want := range []struct {
		port uint16
		p    float64
	}{{1, 0.5}, {2, 0.25}, {3, 0.25}} {
		if b := got.Branches[i]; b.Endpoint.Port() != want.port || math.Abs(b.Probability-want.p) > 1e-6 {
			t.Errorf("way %d goes to %s with %g, want port %d with %g", i, b.Endpoint, b.Probability, want.port, want.p)
		}
	}
}

// TestSameWaysAreOne is chance that decides nothing.
func TestSameWaysAreOne(t *testing.T) {
	n := plan(t, topology.CalicoBGP)
	n.insert("node01", "filter", "-A FORWARD -m statistic --mode random --probability 0.30000000000 -j DROP", "-A FORWARD -j DROP")
	got := n.predict("default/client", ping(n.podAddress("web-0")))
	if len(got.Branches) != 2 { // two rules, either of which may decide
		t.Fatalf("%d branches", len(got.Branches))
	}
	if b := got.Branches[0]; math.Abs(b.Probability-0.7) > 1e-6 || b.Cause.Rule != "-A FORWARD -j DROP" {
		t.Errorf("the likeliest is %g by %s", b.Probability, b.Cause.Rule)
	}
}

// TestKnownConnection is that a connection keeps its endpoint: table nat is not
// asked again.
func TestKnownConnection(t *testing.T) {
	n := plan(t, topology.FlannelVXLAN)
	client, web := netip.AddrPortFrom(n.podAddress("client"), 40000), netip.AddrPortFrom(n.podAddress("web-1"), 80)
	n.states["node01"].Conntrack.Entries = []datapath.ConntrackEntry{{
		Proto: "tcp", State: "ESTABLISHED", Assured: true, OrigSrc: client, OrigDst: netip.AddrPortFrom(serviceIP, servicePort), ReplySrc: web, ReplyDst: client,
	}}
	p := tcp(serviceIP, servicePort)
	p.Flags = "ACK"
	b := n.only("default/client", p)
	if b.Endpoint != web {
		t.Errorf("goes to %s, want %s", b.Endpoint, web)
	}
	known := false
	for _, h := range b.Hops {
		known = known || h.Place == "node01" && h.Stage == trace.Prerouting && strings.Contains(h.Conntrack, "established (known before)")
	}
	if !known {
		t.Error("no hop says that the connection is known")
	}
}

// TestTunnelPassesFullTable is that a table without room for another connection
// takes what a tunnel carries along a connection that it has: lost is what
// comes out of it, which is new.
func TestTunnelPassesFullTable(t *testing.T) {
	n := plan(t, topology.FlannelUDP)
	tunnel := n.states["node02"].UDPTunnel
	here, there := tunnel.Local, n.states["node01"].UDPTunnel.Local
	full := &datapath.ConntrackState{Count: 65536, Max: 65536}
	for _, c := range []struct {
		device string
		known  []datapath.ConntrackEntry
	}{
		{"eth0", nil},
		{tunnel.Device, []datapath.ConntrackEntry{{Proto: "udp", OrigSrc: here, OrigDst: there, ReplySrc: there, ReplyDst: here}}},
	} {
		full.Entries, n.states["node02"].Conntrack = c.known, full
		b := n.only("default/client", ping(n.podAddress("web-0")))
		if b.Cause == nil || b.Cause.Reason != trace.ReasonConntrackFull || b.Cause.Place != "node02" || b.Cause.Device != c.device {
			t.Errorf("known %v: lost by %+v, want node02's %s", c.known, b.Cause, c.device)
		}
	}
}

// TestErrorFindsItsSender is an ICMP error about a packet whose both addresses
// were translated: it must come back as one about what was sent.
func TestErrorFindsItsSender(t *testing.T) {
	for _, mode := range modes[1:] { // the UDP tunnel's own decrement says nothing
		n := plan(t, mode)
		p := tcp(netip.MustParseAddr("192.168.233.30"), nodePort)
		p.TTL = 2 // ends at the second node
		rejected := 0
		for _, b := range n.predict("external", p).Branches {
			if b.Verdict == trace.Delivered {
				continue // the endpoint on the first node
			}
			rejected++
			if b.Verdict != trace.Rejected || b.Cause.Place != "node02" || b.Cause.Reason != trace.ReasonTTL {
				t.Fatalf("%s: %s, %s", mode, b.Verdict, cause(b.Cause))
			}
			last := b.Reply[len(b.Reply)-1].Packet
			if q := last.ICMP.Quoted; q == nil || q.Destination() != p.Destination() || q.Source() != netip.MustParseAddrPort("192.168.233.200:40000") {
				t.Errorf("%s: the error is about %v", mode, last.ICMP.Quoted)
			}
		}
		if rejected != 2 {
			t.Errorf("%s: %d ways end at the second node, want 2", mode, rejected)
		}
	}
}

// TestRoutingLoop is two nodes that each think the other has a subnet.
func TestRoutingLoop(t *testing.T) {
	n := plan(t, topology.FlannelHostGW)
	lost := netip.MustParsePrefix("10.244.77.0/24")
	for _, x := range [][2]string{{"node01", "192.168.233.40"}, {"node02", "192.168.233.30"}} {
		n.dropMasquerade(x[0])
		n.route(n.states[x[0]], datapath.FIBRoute{Dst: lost, Via: netip.MustParseAddr(x[1]), Dev: "eth0"})
	}
	b := n.only("default/client", ping(netip.MustParseAddr("10.244.77.9")))
	if b.Verdict != trace.Rejected || b.Cause.Reason != trace.ReasonTTL {
		t.Errorf("%s: %s", b.Verdict, cause(b.Cause))
	}
	limited := trace.Predict(n, "default/client", ping(netip.MustParseAddr("10.244.77.9")), trace.Options{MaxHops: 40})
	if b := limited.Branches[0]; b.Verdict != trace.Unknown {
		t.Errorf("cut off after 40 hops it is %s", b.Verdict)
	}
}

// TestUnreadable is that a namespace that cannot be read ends in unknown.
func TestUnreadable(t *testing.T) {
	n := plan(t, topology.FlannelHostGW)
	delete(n.states, "node02")
	n.knows("node01", "eth0", n.snap.Nodes[2].Address, n.snap.Nodes[2].Interface.MAC)
	n.states["fabric"].FDB = []datapath.FDBState{{Dev: "node02-eth0", MAC: n.snap.Nodes[2].Interface.MAC, Master: "br"}}
	b := n.only("default/client", ping(n.podAddress("web-0")))
	if b.Verdict != trace.Unknown || b.Cause.Reason != trace.ReasonNotEvaluated || b.Cause.Place != "node02" {
		t.Errorf("%s: %s", b.Verdict, cause(b.Cause))
	}
}

// TestOneReading is that several predictions share what they read.
func TestOneReading(t *testing.T) {
	n := plan(t, topology.FlannelVXLAN)
	c := trace.NewCache(n)
	for range 3 {
		trace.Predict(n, "default/client", ping(n.podAddress("web-0")), trace.Options{Cache: c})
	}
	for ns, times := range n.reads {
		if times != 1 {
			t.Errorf("%s was read %d times", ns, times)
		}
	}
}
