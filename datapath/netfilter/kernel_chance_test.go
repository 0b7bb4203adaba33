package netfilter

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
)

// The shares that the evaluator tells are those that the kernel gives.
func TestProbabilitiesEqualKernel(t *testing.T) {
	const packets = 4000
	r := newRig(t)
	r.iptables(`*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:SVC - [0:0]
:END-A - [0:0]
:END-B - [0:0]
:END-C - [0:0]
-A FORWARD -j SVC
-A FORWARD -m statistic --mode nth --every 4 --packet 0
-A FORWARD -m statistic --mode random ! --probability 0.1 -j MARK --set-mark 1
-A FORWARD -m mark --mark 1 -m statistic --mode random --probability 0.2 -j DROP
-A SVC -m statistic --mode random --probability 0.33333333349 -j END-A
-A SVC -m mark --mark 0 -m statistic --mode random --probability 0.50000000000 -j END-B
-A SVC -m mark --mark 0 -j END-C
-A END-A -j MARK --set-mark 2
-A END-B -j MARK --set-mark 3
COMMIT
`, "iptables-legacy-restore")
	rs, err := kubeproxy.ParseSave(r.saved())
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{}
	p := probe{Packet: datapath.Packet{Proto: "udp", Src: netip.MustParseAddr("10.1.3.1"), Dst: netip.MustParseAddr("10.2.3.1"), SPort: 5000, DPort: 53, TTL: 64}}
	for range packets {
		g.id++
		p.ID = g.id
		r.send("eth0", p)
	}
	q := Query{Hook: "forward", Table: "mangle", Packet: p.Packet, In: "eth0", Out: "eth1", State: "NEW"}
	want := map[string]float64{} // chance that a rule is hit
	for _, o := range Eval(&rs, q) {
		for _, h := range o.Hits {
			want[h.Rule] += o.Probability
		}
	}
	table := r.arrived("mangle", "FORWARD", packets)
	for _, c := range table.Chains {
		for i, rule := range c.Rules {
			chance, got := want[rule.Raw], float64(rule.Counters.Packets)
			// six standard deviations: one run in 10⁸ fails by chance
			allowed := 6 * math.Sqrt(packets*chance*(1-chance))
			if i == 1 && c.Name == "FORWARD" {
				allowed = 0 // it counts
			}
			if math.Abs(got-packets*chance) > allowed+1e-6 {
				t.Errorf("%s: %v of %d, told %v", rule.Raw, got, packets, chance)
			}
		}
	}
}

// arrived waits until the first rule of a chain has been hit n times.
func (r *rig) arrived(table, chain string, n uint64) *kubeproxy.Table {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		rs, err := kubeproxy.ParseSave(r.saved())
		if err != nil {
			r.t.Fatal(err)
		}
		got := rs.Table(table).Chain(chain).Rules[0].Counters.Packets
		if got == n {
			return rs.Table(table)
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d of %d packets came to %s", got, n, chain)
		}
	}
}

// What a rule rejects is answered as the outcome says; what it drops is not.
func TestRejectEqualsKernel(t *testing.T) {
	r := newRig(t)
	// the sender can be answered
	if err := r.h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.1.3.0/24")), Gw: leftGateway.AsSlice(), LinkIndex: r.link("eth0").Attrs().Index, Flags: int(netlink.FLAG_ONLINK)}); err != nil {
		t.Fatal(err)
	}
	r.sysctl("net/ipv4/icmp_ratelimit", "0")
	// the kernel's net/ipv4/netfilter/ipt_REJECT.c, by protocol, type and code
	answers := map[string][3]byte{
		"icmp-port-unreachable": {protoICMP, 3, 3},
		"icmp-net-unreachable":  {protoICMP, 3, 0},
		"icmp-host-prohibited":  {protoICMP, 3, 10},
		"icmp-admin-prohibited": {protoICMP, 3, 13},
		"tcp-reset":             {protoTCP, flagBits["RST"] | flagBits["ACK"], 0},
	}
	r.iptables(`*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp --dport 1 -j REJECT
-A FORWARD -p tcp --dport 2 -j REJECT --reject-with icmp-net-unreachable
-A FORWARD -p tcp --dport 3 -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -p tcp --dport 4 -j REJECT --reject-with icmp-admin-prohibited
-A FORWARD -p tcp --dport 5 -j REJECT --reject-with tcp-reset
-A FORWARD -p tcp --dport 6 -j DROP
COMMIT
`, "iptables-legacy-restore")
	rs, err := kubeproxy.ParseSave(r.saved())
	if err != nil {
		t.Fatal(err)
	}
	rejected := 0
	for port := range uint16(8) {
		p := probe{Packet: syn("10.1.3.1:7000", "10.2.3.1:80")}
		p.DPort, p.ID = port, port
		q := forwarded()
		q.Packet = p.Packet
		o := Eval(&rs, q)[0]
		r.send("eth0", p)
		if o.Verdict != Reject {
			continue // were it answered, the next would read that
		}
		rejected++
		want, known := answers[o.RejectWith]
		if !known {
			t.Errorf("port %d: answer %q", port, o.RejectWith)
		}
		if got := r.answer(); got != want {
			t.Errorf("port %d: %s: kernel answers %v, want %v", port, o.RejectWith, got, want)
		}
	}
	if rejected != len(answers) {
		t.Errorf("%d of %d ports are rejected", rejected, len(answers))
	}
}

// answer reads what comes back to the left: its protocol with ICMP type and code
// or TCP flags.
func (r *rig) answer() [3]byte {
	r.t.Helper()
	fd := r.wire["eth0"].fd
	polls := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(polls, 5000); n != 1 || err != nil {
		r.t.Fatalf("no answer: %v", err)
	}
	var b [2048]byte
	n, _, err := unix.Recvfrom(fd, b[:], 0)
	if err != nil || n < 34 {
		r.t.Fatalf("answer of %d bytes: %v", n, err)
	}
	if b[9] == protoTCP {
		return [3]byte{protoTCP, b[33], 0}
	}
	return [3]byte{b[9], b[20], b[21]}
}
