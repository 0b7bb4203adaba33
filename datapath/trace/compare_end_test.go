package trace

import (
	"slices"
	"strings"
	"testing"

	"slipway/datapath"
)

// lost is a branch that ends at a hop, and what is seen of it.
func lost(t *testing.T, last string, c Cause) (Prediction, Observation) {
	t.Helper()
	b := clone(t, predicted("10.244.2.3:80", "node02", "192.168.1.2"))
	b.Hops, b.Reply = b.Hops[:at(b.Hops, last)+1], nil
	b.Verdict = Dropped
	c.Namespace, c.Place, c.Node = "lab-node02", "node02", "node02"
	b.Cause = &c
	return Prediction{Branches: []Branch{b}}, seen(t, b)
}

func TestCompareCauses(t *testing.T) {
	drop := Cause{Reason: ReasonRuleDrop, Device: "flannel.1", Table: "filter", Stage: Forward, Rule: "-A FORWARD -j DROP"}
	for name, c := range map[string]struct {
		predicted Cause
		change    func(*Observation)
		text      string // empty: they agree
	}{
		"the same":       {drop, func(*Observation) {}, ""},
		"less is known":  {drop, func(o *Observation) { o.Cause.Rule, o.Cause.Table, o.Cause.Device = "", "", "" }, ""},
		"no event says":  {drop, func(o *Observation) { o.Verdict, o.Cause = Unknown, &Cause{Reason: ReasonNotSeen} }, ""},
		"another reason": {drop, func(o *Observation) { o.Cause.Reason = ReasonRPFilter }, "lost by rule-drop, the packet by rp-filter"},
		"another node":   {drop, func(o *Observation) { o.Cause.Namespace = "lab-node01" }, "namespace lab-node02, the packet by lab-node01"},
		"another device": {drop, func(o *Observation) { o.Cause.Device = "cni0" }, "device flannel.1, the packet by cni0"},
		"another table":  {drop, func(o *Observation) { o.Cause.Table = "mangle" }, "table filter, the packet by mangle"},
		"another rule":   {drop, func(o *Observation) { o.Cause.Rule = "-A X -j DROP" }, "rule -A FORWARD -j DROP, the packet by -A X -j DROP"},
		"the reply":      {drop, func(o *Observation) { o.Cause.Reply = true }, "loses the request, lost was the reply"},
		"rejected":       {drop, func(o *Observation) { o.Verdict = Rejected }, "the prediction is dropped, the packet was rejected"},
		"earlier": {drop, func(o *Observation) {
			o.Verdict, o.Cause, o.Request = Unknown, &Cause{Reason: ReasonNotSeen}, o.Request[:5]
		}, "the packet was not seen any more"},
		"later": {drop, func(o *Observation) {
			o.Request = append(o.Request, with(o.Request[0], func(p *Hop) { p.Namespace, p.Place = "lab-x", "x" }))
		}, "the prediction ends, the packet was seen at x/eth0 output"},
		"delivered":        {drop, func(o *Observation) { o.Verdict, o.Cause = Delivered, nil }, "the prediction is dropped, the packet was delivered"},
		"dead tunnel":      {Cause{Reason: ReasonTunnelDown, Table: "tunnel"}, func(o *Observation) { o.Cause.Reason = ReasonNoVTEP }, ""},
		"a switch's flood": {Cause{Reason: ReasonPortDown, Device: "veth9", Table: "link"}, func(o *Observation) { o.Cause.Reason, o.Cause.Device, o.Cause.Table = ReasonNoFDB, "cni0", "fdb" }, ""},
		"a routing table":  {Cause{Reason: ReasonMartian, Table: "local"}, func(o *Observation) { o.Cause.Reason, o.Cause.Table = ReasonMartian, "main" }, ""},
		"hairpin":          {Cause{Reason: ReasonHairpinOff, Table: "link"}, func(o *Observation) { o.Cause.Reason, o.Cause.Table = ReasonPortDown, "bridge" }, ""},
		"a bridge's event": {Cause{Reason: ReasonPortDown, Device: "br0"}, func(o *Observation) {
			o.Cause.Reason, o.Cause.Device, o.Cause.Stage = ReasonPortDown, "veth1", BridgeStage
		}, ""},
		"ARP goes on":     {Cause{Reason: ReasonNoNeighbor}, func(o *Observation) { o.Verdict = Rejected }, ""},
		"ARP, delivered":  {Cause{Reason: ReasonNoNeighbor}, func(o *Observation) { o.Verdict, o.Cause = Delivered, nil }, "the packet was delivered"},
		"sockets: reason": {drop, func(o *Observation) { o.Observes, o.Cause.Reason = []Stage{Egress, Ingress, Wire}, ReasonNoListener }, ""},
	} {
		p, o := lost(t, "node02/flannel.1 forward", c.predicted)
		c.change(&o)
		_, d := Compare(p, o)
		if c.text == "" && len(d) > 0 {
			t.Errorf("%s: disagrees:%s", name, texts(d))
		}
		if c.text != "" && !slices.ContainsFunc(d, func(x Disagreement) bool { return strings.Contains(x.Text, c.text) }) {
			t.Errorf("%s: want %q, got:%s", name, c.text, texts(d))
		}
	}
}

// A prediction that does not know how it goes on contradicts nothing behind.
func TestCompareUnknownPrediction(t *testing.T) {
	whole := predicted("10.244.2.3:80", "node02", "192.168.1.2")
	p, _ := lost(t, "node01/cni0 forward", Cause{Reason: ReasonNotEvaluated})
	p.Branches[0].Verdict = Unknown
	if _, d := Compare(p, seen(t, whole)); len(d) != 0 {
		t.Errorf("delivered behind what is not known:%s", texts(d))
	}
	o := seen(t, whole)
	o.Request[2].Packet.TTL = 9
	if _, d := Compare(p, o); len(d) != 1 {
		t.Errorf("what comes before is not compared:%s", texts(d))
	}
}

// Hosts limit their ICMP errors: that none was sent is no disagreement, one that
// was lost on its way is.
func TestCompareWithheldError(t *testing.T) {
	p, o := lost(t, "node01/cni0 forward", Cause{Reason: ReasonUnreachable, Table: "main"})
	b := &p.Branches[0]
	b.Verdict = Rejected
	b.Reply = []Hop{with(h("node01/cni0 output", "10.244.1.1:0>10.244.1.2:0", 64), func(p *Hop) { p.Packet.ICMP = &datapath.ICMPInfo{Type: 3, Code: 1} })}
	o.Cause.Reason = ReasonBlackhole
	if _, d := Compare(p, o); len(d) != 0 {
		t.Errorf("an error that was not sent:%s", texts(d))
	}
	o.Reply = []Hop{with(b.Reply[0], func(p *Hop) { p.Stage = Postrouting })}
	if _, d := Compare(p, o); len(d) == 0 {
		t.Error("an error that went astray is not noticed")
	}
	o.Reply, o.Cause.Reason = nil, ReasonRPFilter
	if _, d := Compare(p, o); len(d) == 0 {
		t.Error("another reason is not noticed")
	}
}

// A REJECT rule whose error was withheld looks like DROP, but for the rule.
func TestWithheldByRule(t *testing.T) {
	reject := Cause{Reason: ReasonRuleReject, Table: "filter", Stage: Forward, Rule: "-A FORWARD -j REJECT --reject-with icmp-port-unreachable"}
	for name, c := range map[string]struct {
		change func(*Observation)
		want   bool
	}{
		"that rule":          {func(*Observation) {}, true},
		"rules are not seen": {func(o *Observation) { o.Cause.Rule, o.Cause.Table = "", "" }, true},
		"another rule":       {func(o *Observation) { o.Cause.Rule = "-A FORWARD -j DROP" }, false},
		"another table":      {func(o *Observation) { o.Cause.Table, o.Cause.Rule = "mangle", "" }, false},
		"another node":       {func(o *Observation) { o.Cause.Namespace = "lab-node01" }, false},
		"another reason":     {func(o *Observation) { o.Cause.Reason = ReasonRPFilter }, false},
		"it was sent":        {func(o *Observation) { o.Reply = o.Request[:1] }, false},
		"events were lost":   {func(o *Observation) { o.Lost = 1 }, false},
	} {
		p, o := lost(t, "node02/flannel.1 forward", reject)
		b := &p.Branches[0]
		b.Verdict = Rejected
		b.Reply = []Hop{with(h("node02/flannel.1 output", "10.244.2.1:0>10.244.1.2:0", 64), func(p *Hop) { p.Packet.ICMP = &datapath.ICMPInfo{Type: 3, Code: 3} })}
		o.Verdict, o.Cause.Reason, o.Cause.Text = Dropped, ReasonRuleDrop, "node02: dropped by rule …"
		o.Request[len(o.Request)-1].Action = Drop
		c.change(&o)
		if _, d := Compare(p, o); (len(d) == 0) != c.want || Withheld(b, &o) != c.want {
			t.Errorf("%s: withheld %v, want %v, and Compare says:%s", name, Withheld(b, &o), c.want, texts(d))
		}
		if !c.want {
			continue
		}
		notes := TellWithheld(b, &o, []string{"one", mayBeWithheld})
		last := o.Request[len(o.Request)-1]
		if o.Verdict != Rejected || o.Cause.Reason != ReasonRuleReject || last.Action != Reject || o.Cause.Text != "node02: rejected by rule …" || !slices.Equal(notes, []string{"one"}) || !slices.Contains(o.Notes, wasWithheld) {
			t.Errorf("%s: %+v\n%+v\n%+v\n%q", name, o.Cause, last, o.Notes, notes)
		}
	}
}
