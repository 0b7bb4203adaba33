package netfilter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
)

// trial is one rule set in the kernel with the same in the model, and what was sent.
type trial struct {
	*rig
	g    *generator
	walk *walk
	want map[uint16]*passage
	log  []string
}

// The kernel and the evaluator do the same with the same packets: which leave,
// with which addresses, ports and TTL, and how often each rule was hit.
func TestEvalEqualsKernel(t *testing.T) {
	const rulesets, batch = 200, 20
	r := newRig(t)
	addrType := AddrTypes(r.state())
	seed := rand.Uint64()
	if s := os.Getenv("NETFILTER_SEED"); s != "" { // of a run that failed
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), port: 1000}
	packets, accepted, translated, hits := 0, 0, 0, uint64(0)
	for n := range rulesets {
		text := g.ruleset()
		x := &trial{rig: r, g: g, want: map[uint16]*passage{}}
		r.flush()
		r.iptables(text, "iptables-legacy-restore")
		loaded := r.saved()
		rules, err := Parse(map[string]string{"all": loaded})
		if err != nil {
			t.Fatal(err)
		}
		x.walk = &walk{rules: rules, addrType: addrType, recent: map[Remembered]int{}, counts: map[string]counts{}}
		for range batch {
			x.converse()
		}
		got := map[uint16]seen{}
		leaving := x.leaving()
		r.receive(got, leaving)
		ok := x.compareCounts()
		r.receive(got, 0)
		ok = x.comparePackets(got) && ok
		packets += len(x.want)
		accepted += leaving
		for _, p := range x.want {
			if p.ct != nil && (p.ct.dnat || p.ct.snat) {
				translated++
			}
		}
		for _, c := range x.walk.counts {
			hits += c.packets
		}
		if !ok || t.Failed() {
			t.Fatalf("rule set %d of NETFILTER_SEED=%d:\n%s\n%s", n, seed, loaded, strings.Join(x.log, "\n"))
		}
	}
	t.Logf("%d rule sets, %d packets, %d left the node, %d of translated connections, %d rule hits: all equal", rulesets, packets, accepted, translated, hits)
	if packets < 3000 || accepted < packets/10 || translated < packets/20 {
		t.Error("the rule sets do not try enough")
	}
}

// flush forgets all connections. It must be asked inside the namespace: the
// rig's handle is for routes, and would ask where its caller is.
func (r *rig) flush() {
	r.t.Helper()
	if err := r.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) saved() string { return r.iptables("", "iptables-legacy-save", "-c") }

// give sends one packet and asks the model the same.
func (x *trial) give(dev string, p probe) *passage {
	x.send(dev, p)
	var out *passage
	if dev == "" {
		out = x.walk.send(p.Packet)
	} else {
		out = x.walk.forward(dev, p.Packet)
	}
	if out.unknown != "" {
		x.t.Errorf("unknown: %s", out.unknown)
	}
	x.want[p.ID] = out
	x.log = append(x.log, fmt.Sprintf("id %d by %q: %s %s icmp %+v mark 0x%x length %d → %s by %q %s (%s)", p.ID, dev, p.Packet, p.Flags, p.ICMP, p.Mark, p.Length, out.verdict, out.out, out.p, out.state))
	return out
}

// converse sends a packet, and mostly what may follow it.
func (x *trial) converse() {
	p := x.g.packet()
	dev := "eth0"
	if x.g.chance(30) {
		dev, p.Mark = "", uint32(x.g.IntN(16))
	}
	out := x.give(dev, p)
	if out.verdict != Accept || out.out != "eth1" || out.ct != nil && out.ct.anyPort || x.g.chance(20) {
		return
	}
	if p.Proto == "udp" && x.g.chance(30) { // once more, before an answer
		x.g.id++
		p.ID = x.g.id
		x.give(dev, p)
	}
	if out.ct == nil {
		return
	}
	x.g.id++
	reply, ok := respond(out.p, x.g.id)
	if x.g.chance(25) && out.ct != nil && out.state == "NEW" {
		quoted := out.p
		reply = datapath.Packet{Src: netip.MustParseAddr("10.2.200.1"), Dst: out.p.Src, Proto: "icmp", TTL: 64, ID: x.g.id, ICMP: &datapath.ICMPInfo{Type: 3, Code: 1, Quoted: &quoted}}
		ok = true
	}
	if !ok {
		return
	}
	back := probe{Packet: reply}
	back.Length = len(back.bytes())
	answered := x.give("eth1", back)
	if p.Proto == "udp" && answered.verdict == Accept && answered.state == "ESTABLISHED" {
		x.g.id++
		p.ID = x.g.id
		x.give(dev, p)
	}
}

func (x *trial) leaving() int {
	n := 0
	for _, p := range x.want {
		if p.verdict == Accept && (p.out == "eth0" || p.out == "eth1") {
			n++
		}
	}
	return n
}

func (x *trial) comparePackets(got map[uint16]seen) bool {
	ok := true
	for id, p := range x.want {
		s, left := got[id]
		if want := p.verdict == Accept && (p.out == "eth0" || p.out == "eth1"); want != left {
			x.t.Errorf("packet %d: %s by %q, kernel sent it: %v", id, p.verdict, p.out, left)
			ok = false
			continue
		}
		if !left {
			continue
		}
		want := seen{dev: p.out, src: p.p.Src, dst: p.p.Dst, sport: p.p.SPort, dport: p.p.DPort, ttl: p.p.TTL, length: p.p.Length}
		if p.ct != nil && p.ct.anyPort {
			want.sport = s.sport
		}
		if s != want {
			x.t.Errorf("packet %d:\n kernel %+v\n  model %+v", id, s, want)
			ok = false
		}
	}
	return ok
}

// compareCounts compares all counters of all rules and policies. What the node
// sends to itself may still be on its way, as nothing says when it is there.
func (x *trial) compareCounts() bool {
	const patience = 5 * time.Second
	var differ []string
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if differ = x.differingCounts(); len(differ) == 0 {
			return true
		}
	}
	x.t.Error(strings.Join(differ, "\n"))
	return false
}

func (x *trial) differingCounts() (differ []string) {
	rs, err := kubeproxy.ParseSave(x.saved())
	if err != nil {
		x.t.Fatal(err)
	}
	check := func(id, what string, c kubeproxy.Counters) {
		if w := x.walk.counts[id]; w.packets != c.Packets || w.bytes != c.Bytes {
			differ = append(differ, fmt.Sprintf("%s: kernel %d:%d, model %d:%d: %s", id, c.Packets, c.Bytes, w.packets, w.bytes, what))
		}
	}
	for _, t := range rs.Tables {
		for _, c := range t.Chains {
			if c.Policy != "-" {
				check(fmt.Sprintf("%s %s 0", t.Name, c.Name), "policy "+c.Policy, c.Counters)
			}
			for i, r := range c.Rules {
				check(fmt.Sprintf("%s %s %d", t.Name, c.Name, i+1), r.Raw, *r.Counters)
			}
		}
	}
	return differ
}
