package trace

import (
	"fmt"
	"strings"

	"slipway/datapath"
	"slipway/datapath/netfilter"
)

// action is what the hook did to the packet.
func (v *passage) action(mark uint32) Action {
	switch {
	case v.nat != nil && v.nat.Kind == netfilter.Masquerade:
		return Masquerade
	case v.nat != nil && v.nat.Source:
		return SNAT
	case v.nat != nil:
		return DNAT
	}
	if ct := v.s.ct; ct != nil && v.changed {
		if !manip(v.at.stage) {
			return DNAT
		}
		if ct.masqueraded && !v.s.ctReply {
			return Masquerade
		}
		return SNAT
	}
	switch {
	case v.s.p.Mark != mark:
		return Mark
	case v.at.stage == Forward && v.s.bridged == nil:
		return ForwardAction
	}
	return Pass
}

// explain says in words what the hook did.
func (v *passage) explain(before datapath.Packet) string {
	var parts []string
	p := v.s.p
	if v.changed {
		why := "the connection is known"
		if v.nat != nil {
			why = "a rule of table nat says so"
			if v.nat.Kind == netfilter.Masquerade {
				why = "masqueraded with the address of " + v.at.out
			}
		} else if v.s.ctReply {
			why = "put back as the sender of the request knows it"
		}
		if p.Dst != before.Dst || p.DPort != before.DPort {
			parts = append(parts, fmt.Sprintf("destination %s becomes %s: %s", addressText(before, false), addressText(p, false), why))
		}
		if p.Src != before.Src || p.SPort != before.SPort {
			parts = append(parts, fmt.Sprintf("source %s becomes %s: %s", addressText(before, true), addressText(p, true), why))
		}
	}
	if p.Mark != before.Mark {
		parts = append(parts, fmt.Sprintf("marked %#x", p.Mark))
	}
	if len(parts) == 0 {
		if len(v.hop.Rules) == 0 {
			return "no rule here"
		}
		return "no rule changes or stops the packet"
	}
	return strings.Join(parts, "; ")
}

func addressText(p datapath.Packet, source bool) string {
	a := p.Destination()
	if source {
		a = p.Source()
	}
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
