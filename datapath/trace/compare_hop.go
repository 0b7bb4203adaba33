package trace

import (
	"fmt"
	"slices"

	"slipway/datapath"
)

// hop compares two hops at one point of the way. Actions need no comparison of
// their own: address changes show in the packets, and ends in the verdict. A difference is told where it
// begins: same remembers, for each thing compared, what was told last.
func (m *matcher) hop(p, o *Hop, at Disagreement, same map[string]string) {
	for _, f := range m.fields(p, o, at.Reply) {
		told := ""
		if f.predicted != f.observed {
			told = f.predicted + " / " + f.observed
		}
		if told != "" && same[f.name] != told {
			m.add(at.Reply, at.Predicted, at.Observed, "packet", "at %s the prediction has %s %s, the packet had %s", p.At(), f.name, f.predicted, f.observed)
		}
		same[f.name] = told
	}
	m.rule(p, o, at)
}

// field is one thing to compare, as text.
type field struct{ name, predicted, observed string }

// fields lists what both packets know and the kernel does not choose.
func (m *matcher) fields(a, b *Hop, reply bool) []field {
	p, o := a.Packet, b.Packet
	out := []field{
		{"source", p.Src.String(), o.Src.String()},
		{"destination", p.Dst.String(), o.Dst.String()},
		{"protocol", p.Proto, o.Proto},
	}
	number := func(name string, p, o int) {
		if p != 0 && o != 0 {
			out = append(out, field{name, fmt.Sprint(p), fmt.Sprint(o)})
		}
	}
	number("ttl", int(p.TTL), int(o.TTL))
	if p.Src == o.Src && (reply || !m.translated[p.Src]) {
		number("source port", int(p.SPort), int(o.SPort))
	}
	if p.Dst == o.Dst && (!reply || !m.translated[p.Dst]) {
		number("destination port", int(p.DPort), int(o.DPort))
	}
	if !reply && !p.Fragment && !o.Fragment { // of a fragment, the two mean different lengths
		number("length", p.Length, o.Length)
	}
	if p.Mark != 0 && o.Mark != 0 {
		out = append(out, field{"mark", fmt.Sprintf("%#x", p.Mark), fmt.Sprintf("%#x", o.Mark)})
	}
	if p.Flags != "" && o.Flags != "" {
		out = append(out, field{"flags", p.Flags, o.Flags})
	}
	if p.ICMP != nil && o.ICMP != nil {
		out = append(out, field{"icmp type/code", icmpKind(p.ICMP), icmpKind(o.ICMP)})
	}
	return append(out, field{"outer packet", carrier(p.Outer), carrier(o.Outer)})
}

func icmpKind(m *datapath.ICMPInfo) string { return fmt.Sprintf("%d/%d", m.Type, m.Code) }

// carrier writes what is compared of an outer packet: all but its source port,
// which is a hash of the inner packet, and its TTL.
func carrier(o *datapath.Outer) string {
	if o == nil {
		return "none"
	}
	s := fmt.Sprintf("%s %s → %s", o.Type, o.Src, o.Dst)
	if o.DPort != 0 {
		s += fmt.Sprintf(":%d", o.DPort)
	}
	if o.VNI != nil {
		s += fmt.Sprintf(" vni %d", *o.VNI)
	}
	return s
}

// rule compares what decided. Each side's deciding rule must be among those
// that the other one matched: which of several is called the deciding one is a
// matter of taste. A hook without a single hit was not traced there: a traced
// packet comes at least to the policy of each table. (Where a port was chosen at
// random, the packet is no longer known to what traces rules.)
func (m *matcher) rule(p, o *Hop, at Disagreement) {
	if !m.seen.Rules || (o.Rule == "" && len(o.Rules) == 0) || p.Table == "conntrack" {
		return
	}
	switch {
	case p.Rule != "" && !matched(o, p.Rule) && (o.Rule != "" || p.changes()):
		m.add(at.Reply, at.Predicted, at.Observed, "rule", "at %s the prediction is decided by %s, the packet by %s", p.At(), p.Rule, orNone(o.Rule))
	case o.Rule != "" && !matched(p, o.Rule) && (p.Rule != "" || o.changes()):
		m.add(at.Reply, at.Predicted, at.Observed, "rule", "at %s the packet was decided by %s, the prediction by %s", p.At(), o.Rule, orNone(p.Rule))
	}
}

// changes reports whether a hop does more than let the packet pass.
func (h *Hop) changes() bool { return h.Action != Pass && h.Action != ForwardAction }

func matched(h *Hop, rule string) bool {
	return h.Rule == rule || slices.ContainsFunc(h.Rules, func(r Hit) bool { return r.Rule == rule })
}

func orNone(s string) string {
	if s == "" {
		return "no rule"
	}
	return s
}
