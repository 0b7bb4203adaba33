package trace

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"slipway/datapath"
)

var observable = []Stage{Egress, Ingress, Wire, Prerouting, Input, Forward, Output, Postrouting, Deliver}

// h makes a hop of "place/device stage" and a packet of "src:port>dst:port".
func h(at, packet string, ttl uint8) Hop {
	where, stage, _ := strings.Cut(at, " ")
	place, device, _ := strings.Cut(where, "/")
	src, dst, _ := strings.Cut(packet, ">")
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	hop := Hop{
		Node: place, Namespace: "lab-" + place, Place: place, Device: device, Stage: Stage(stage), Action: Pass,
		Packet: datapath.Packet{Src: s.Addr(), SPort: s.Port(), Dst: d.Addr(), DPort: d.Port(), Proto: "tcp", TTL: ttl, Length: 60},
	}
	switch hop.Stage {
	case Socket, Route, BridgeStage, Encap, Decap, Userspace:
		hop.Hidden = true
	}
	return hop
}

func with(hop Hop, change func(*Hop)) Hop {
	change(&hop)
	return hop
}

func outer(hop Hop, src, dst string) Hop {
	vni := uint32(1)
	hop.Packet.Outer = &datapath.Outer{Type: "vxlan", Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), VNI: &vni, SPort: 55555, DPort: 8472}
	return hop
}

// predicted is the way from a pod to an endpoint of a service on another node,
// and the beginning and the end of the answer's.
func predicted(endpoint, node, address string) Branch {
	const asked = "10.244.1.2:40000>10.96.0.10:8080"
	to := "10.244.1.2:40000>" + endpoint
	rule := "-A KUBE-SEP-" + node + " -p tcp -j DNAT --to-destination " + endpoint
	return Branch{
		Probability: 0.5, Verdict: Delivered, Endpoint: netip.MustParseAddrPort(endpoint),
		Hops: []Hop{
			h("client/ socket", asked, 64),
			h("client/eth0 output", asked, 64),
			h("client/eth0 egress", asked, 64),
			h("node01/veth1 ingress", asked, 64),
			h("node01/cni0 bridge", asked, 64),
			h("node01/cni0 ingress", asked, 64),
			with(h("node01/cni0 prerouting", to, 64), func(p *Hop) {
				p.Action, p.Table, p.Rule = DNAT, "nat", rule
				p.Rules = []Hit{{Table: "nat", Chain: "KUBE-SVC-X", Rule: "-A KUBE-SVC-X -j KUBE-SEP-" + node}, {Table: "nat", Rule: rule}}
			}),
			h("node01/ route", to, 64),
			h("node01/cni0 forward", to, 63),
			h("node01/flannel.1 egress", to, 63),
			outer(h("node01/flannel.1 encap", to, 63), "192.168.1.1", address),
			outer(h("node01/eth0 output", to, 63), "192.168.1.1", address),
			outer(h("node01/eth0 egress", to, 63), "192.168.1.1", address),
			outer(h("fabric/node01-eth0 wire", to, 63), "192.168.1.1", address),
			outer(h("fabric/"+node+"-eth0 wire", to, 63), "192.168.1.1", address),
			outer(h(node+"/eth0 ingress", to, 63), "192.168.1.1", address),
			outer(h(node+"/eth0 input", to, 63), "192.168.1.1", address),
			h(node+"/flannel.1 decap", to, 63),
			h(node+"/flannel.1 ingress", to, 63),
			h(node+"/flannel.1 forward", to, 62),
			h(node+"/veth9 egress", to, 62),
			h("pod-"+node+"/eth0 ingress", to, 62),
			h("pod-"+node+"/eth0 input", to, 62),
			with(h("pod-"+node+"/eth0 deliver", to, 62), func(p *Hop) { p.Action = DeliverAction }),
		},
		Reply: []Hop{
			h("pod-"+node+"/eth0 output", endpoint+">10.244.1.2:40000", 64),
			h(node+"/veth9 ingress", endpoint+">10.244.1.2:40000", 64),
			with(h("node01/cni0 postrouting", "10.96.0.10:8080>10.244.1.2:40000", 62), func(p *Hop) { p.Action = SNAT }),
			h("client/eth0 ingress", "10.96.0.10:8080>10.244.1.2:40000", 62),
			with(h("client/eth0 deliver", "10.96.0.10:8080>10.244.1.2:40000", 62), func(p *Hop) { p.Action = DeliverAction }),
		},
	}
}

func prediction() Prediction {
	return Prediction{Branches: []Branch{predicted("10.244.2.3:80", "node02", "192.168.1.2"), predicted("10.244.3.3:80", "node03", "192.168.1.3")}}
}

// clone copies through the JSON form, so that a change stays local.
func clone[T any](t *testing.T, v T) T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// seen is what an observer reports of a branch: without what nobody sees, with
// what the kernel chooses, and with what it derives.
func seen(t *testing.T, b Branch) Observation {
	t.Helper()
	b = clone(t, b)
	drop := func(hops []Hop) []Hop {
		return slices.DeleteFunc(hops, func(p Hop) bool { return p.Hidden && p.Stage != Encap })
	}
	o := Observation{Observer: "bpf", Observes: observable, Rules: true, Request: drop(b.Hops), Reply: drop(b.Reply), Verdict: b.Verdict, Cause: b.Cause}
	for _, list := range [][]Hop{o.Request, o.Reply} {
		for i := range list {
			list[i].Seq, list[i].Evidence, list[i].Packet.ID, list[i].Packet.Length = i+1, []string{"event"}, 4711, 60
			if o := list[i].Packet.Outer; o != nil {
				o.SPort, o.TTL = uint16(33000+i), 64
			}
		}
	}
	return o
}

func at(hops []Hop, name string) int {
	return slices.IndexFunc(hops, func(p Hop) bool { return p.At() == name })
}

func texts(d []Disagreement) string {
	var b strings.Builder
	for _, x := range d {
		fmt.Fprintf(&b, "\n  %s: %s", x.What, x.Text)
	}
	return b.String()
}

// A faithful observation agrees with the branch that it took, whichever.
func TestCompareAgrees(t *testing.T) {
	p := prediction()
	for i, b := range p.Branches {
		for name, change := range map[string]func(*Observation){
			"as it is":      func(*Observation) {},
			"without rules": func(o *Observation) { o.Rules = false },
			"without the encap hop": func(o *Observation) {
				o.Request = slices.DeleteFunc(o.Request, func(p Hop) bool { return p.Stage == Encap })
			},
			"no hits in a hook": func(o *Observation) { o.Request[3].Rules = nil },
			"more rules than one": func(o *Observation) {
				o.Request[at(o.Request, "node01/cni0 forward")].Rules = []Hit{{Rule: "-A FORWARD -j KUBE-FORWARD"}}
			},
			"a mark that is not modeled": func(o *Observation) { o.Request[2].Packet.Mark = 7 },
			"seen by packet sockets": func(o *Observation) {
				o.Observes, o.Rules, o.Observer = []Stage{Egress, Ingress, Wire}, false, "af_packet"
				keep := func(p Hop) bool { return !slices.Contains(o.Observes, p.Stage) }
				o.Request, o.Reply = slices.DeleteFunc(o.Request, keep), slices.DeleteFunc(o.Reply, keep)
			},
			"events were lost": func(o *Observation) {
				o.Lost = 2
				o.Request = slices.Delete(o.Request, 4, 6)
				o.Reply = o.Reply[1:]
			},
		} {
			o := seen(t, b)
			change(&o)
			best, d := Compare(p, o)
			if best != i || len(d) != 0 {
				t.Errorf("branch %d, %s: took branch %d and disagrees:%s", i, name, best, texts(d))
			}
		}
	}
}

// Nothing that is subtly wrong goes unnoticed, and the text says what it is.
func TestCompareNotices(t *testing.T) {
	p := prediction()
	for name, c := range map[string]struct {
		change func(*Observation)
		what   string // of the first disagreement
		text   string
	}{
		"another node": {func(o *Observation) {
			i := at(o.Request, "node02/eth0 ingress")
			o.Request[i].Namespace, o.Request[i].Place, o.Request[i].Node = "lab-node04", "node04", "node04"
		}, "path", "after fabric/node02-eth0 wire the prediction goes to node02/eth0 ingress, the packet was seen at node04/eth0 ingress"},
		"another device": {func(o *Observation) { o.Request[at(o.Request, "node02/veth9 egress")].Device = "veth8" },
			"path", "after node02/flannel.1 forward the prediction goes to node02/veth9 egress, the packet was seen at node02/veth8 egress"},
		"a hop too many": {func(o *Observation) {
			i := at(o.Request, "node01/cni0 forward")
			o.Request = slices.Insert(o.Request, i, with(o.Request[i], func(p *Hop) { p.Stage = Input }))
		}, "path", "after node01/cni0 prerouting the packet was seen at node01/cni0 input, the prediction goes straight to node01/cni0 forward"},
		"not dnatted": {func(o *Observation) {
			o.Request[at(o.Request, "node01/cni0 prerouting")].Packet.Dst = netip.MustParseAddr("10.96.0.10")
		}, "packet", "at node01/cni0 prerouting the prediction has destination 10.244.2.3, the packet had 10.96.0.10"},
		"masqueraded": {func(o *Observation) {
			o.Request[at(o.Request, "node01/cni0 forward")].Packet.Src = netip.MustParseAddr("10.244.1.0")
		}, "packet", "source 10.244.1.2, the packet had 10.244.1.0"},
		"another port":    {func(o *Observation) { o.Request[at(o.Request, "node01/cni0 forward")].Packet.DPort = 81 }, "packet", "destination port 80, the packet had 81"},
		"another client":  {func(o *Observation) { o.Request[1].Packet.SPort = 1 }, "packet", "source port 40000, the packet had 1"},
		"one router more": {func(o *Observation) { o.Request[at(o.Request, "node02/flannel.1 forward")].Packet.TTL = 61 }, "packet", "ttl 62, the packet had 61"},
		"longer":          {func(o *Observation) { o.Request[0].Packet.Length = 61 }, "packet", "length 60, the packet had 61"},
		"no carrier":      {func(o *Observation) { o.Request[at(o.Request, "node01/eth0 egress")].Packet.Outer = nil }, "packet", "outer packet vxlan 192.168.1.1 → 192.168.1.2:8472 vni 1, the packet had none"},
		"another VTEP": {func(o *Observation) {
			o.Request[at(o.Request, "node01/eth0 egress")].Packet.Outer.Dst = netip.MustParseAddr("192.168.1.9")
		}, "packet", "192.168.1.9"},
		"another VNI":    {func(o *Observation) { *o.Request[at(o.Request, "node01/eth0 egress")].Packet.Outer.VNI = 2 }, "packet", "vni 2"},
		"another tunnel": {func(o *Observation) { o.Request[at(o.Request, "node01/eth0 egress")].Packet.Outer.DPort = 4789 }, "packet", ":4789"},
		"UDP":            {func(o *Observation) { o.Request[0].Packet.Proto = "udp" }, "packet", "protocol tcp, the packet had udp"},
		"another mark":   {func(o *Observation) { p.Branches[0].Hops[1].Packet.Mark = 1; o.Request[0].Packet.Mark = 2 }, "packet", "mark 0x1, the packet had 0x2"},
		"another rule": {func(o *Observation) {
			r := &o.Request[at(o.Request, "node01/cni0 prerouting")]
			r.Rule, r.Rules = "-A X -j DNAT", nil
		}, "rule", "the packet by -A X -j DNAT"},
		"a rule not known": {func(o *Observation) {
			o.Request[at(o.Request, "node01/cni0 forward")].Rule = "-A FORWARD -j MARK"
			o.Request[at(o.Request, "node01/cni0 forward")].Action = Mark
		}, "rule", "the packet was decided by -A FORWARD -j MARK, the prediction by no rule"},
		"no rule": {func(o *Observation) {
			r := &o.Request[at(o.Request, "node01/cni0 prerouting")]
			r.Rule, r.Rules = "", []Hit{{Table: "nat", Chain: "PREROUTING", Rule: "policy ACCEPT"}}
		}, "rule", "the packet by no rule"},
		"reply not undone": {func(o *Observation) {
			o.Reply[at(o.Reply, "client/eth0 ingress")].Packet.Src = netip.MustParseAddr("10.244.2.3")
		}, "packet", "source 10.96.0.10, the packet had 10.244.2.3"},
		"reply elsewhere": {func(o *Observation) { o.Reply[1].Device = "veth8" }, "path", "veth8"},
		"vanished": {func(o *Observation) {
			o.Request, o.Reply, o.Verdict, o.Cause = o.Request[:6], nil, Unknown, &Cause{Reason: ReasonNotSeen}
		}, "path", "the packet was not seen any more"},
		"no answer": {func(o *Observation) {
			o.Reply, o.Verdict, o.Cause = nil, Unknown, &Cause{Reason: ReasonNotSeen, Reply: true}
		}, "path", "at the start the prediction goes to pod-node02/eth0 output, the packet was not seen any more"},
		"dropped":           {func(o *Observation) { o.Verdict, o.Cause = Dropped, &Cause{Reason: ReasonRuleDrop, Text: "a rule"} }, "verdict", "the prediction is delivered, the packet was dropped (a rule)"},
		"rejected":          {func(o *Observation) { o.Verdict, o.Cause = Rejected, &Cause{Reason: ReasonNoListener} }, "verdict", "the packet was rejected"},
		"nothing was seen":  {func(o *Observation) { o.Request, o.Reply, o.Verdict = nil, nil, Unknown }, "path", "at the start the prediction goes to client/eth0 output, the packet was not seen any more"},
		"unknown, all seen": {func(o *Observation) { o.Verdict = Unknown }, "verdict", "the prediction is delivered, the packet was not"},
	} {
		p = prediction()
		o := seen(t, p.Branches[0])
		c.change(&o)
		best, d := Compare(p, o)
		if best != 0 || len(d) == 0 || d[0].What != c.what || !strings.Contains(d[0].Text, c.text) {
			t.Errorf("%s: branch %d, want %s: %q, got:%s", name, best, c.what, c.text, texts(d))
		}
		for _, x := range d {
			hops, observed := p.Branches[0].Hops, o.Request
			if x.Reply {
				hops, observed = p.Branches[0].Reply, o.Reply
			}
			if x.Predicted >= len(hops) || x.Observed >= len(observed) {
				t.Errorf("%s: %+v points nowhere", name, x)
			}
		}
	}
}

// Whichever hop is missing, and at whichever one the packet is another, the
// comparison says so, and says it once or twice, not at every hop that follows.
func TestCompareEveryHop(t *testing.T) {
	p := prediction()
	whole := seen(t, p.Branches[0])
	for i, hop := range whole.Request {
		if hop.Stage == Encap {
			continue // derived, not required
		}
		o := seen(t, p.Branches[0])
		o.Request = slices.Delete(o.Request, i, i+1)
		if _, d := Compare(p, o); len(d) != 1 || d[0].What != "path" || !strings.Contains(d[0].Text, hop.At()) {
			t.Errorf("without %s:%s", hop.At(), texts(d))
		}
		o = seen(t, p.Branches[0])
		for j := i; j < len(o.Request); j++ {
			o.Request[j].Packet.Src = netip.MustParseAddr("10.9.9.9")
		}
		if _, d := Compare(p, o); len(d) != 1 || d[0].What != "packet" || !strings.Contains(d[0].Text, hop.At()) {
			t.Errorf("another source from %s on:%s", hop.At(), texts(d))
		}
	}
}

// An endpoint that no branch has is not taken for one of them.
func TestCompareSwappedEndpoint(t *testing.T) {
	p := prediction()
	o := seen(t, p.Branches[1])
	best, d := Compare(Prediction{Branches: p.Branches[:1]}, o)
	if best != 0 || len(d) < 2 || d[0].What != "packet" || !strings.Contains(d[0].Text, "10.244.3.3") {
		t.Errorf("branch %d:%s", best, texts(d))
	}
	if best, d := Compare(Prediction{}, o); best != -1 || d != nil {
		t.Errorf("without branches: %d, %v", best, d)
	}
}

// A masquerade's source port is the kernel's choice, in the answer too.
func TestCompareMasqueradePort(t *testing.T) {
	p := prediction()
	b := &p.Branches[0]
	from := at(b.Hops, "node01/cni0 forward")
	for i := from; i < len(b.Hops); i++ {
		b.Hops[i].Packet.Src = netip.MustParseAddr("10.244.1.0")
	}
	for i := range 2 {
		b.Reply[i].Packet.Dst = netip.MustParseAddr("10.244.1.0")
	}
	o := seen(t, *b)
	for i := range o.Request {
		if o.Request[i].Packet.Src == b.Hops[from].Packet.Src {
			o.Request[i].Packet.SPort = 61234
		}
	}
	for i := range 2 {
		o.Reply[i].Packet.DPort = 61234
	}
	if _, d := Compare(p, o); len(d) != 0 {
		t.Errorf("disagrees:%s", texts(d))
	}
	o.Request[0].Packet.SPort = 61234 // but before it, it is not
	if _, d := Compare(p, o); len(d) != 1 {
		t.Errorf("another port of the client's own is not noticed:%s", texts(d))
	}
}
