package trace

import (
	"fmt"

	"slipway/datapath"
)

// ipRcv is ip_rcv and ip_rcv_finish (net/ipv4/ip_input.c): is the frame for us,
// PREROUTING, where does the packet go.
func (w *walk) ipRcv(pl *place, dev *datapath.Device, s *skb) end {
	if flt := otherHost(pl, dev, s); flt != nil {
		return w.stop(pl, s, Hop{Stage: Ingress, Device: dev.Name, Hidden: true}, flt)
	}
	// A packet that br_netfilter has shown to PREROUTING is not shown again
	// (net/bridge/br_netfilter_hooks.c, ip_sabotage_in).
	if s.bridged == nil {
		if v := w.hook(pl, s, hookPoint{stage: Prerouting, in: dev.Name}); v != nil {
			return *v
		}
	}
	s.bridged = nil
	if kept := s.kept; kept != nil { // its way is known: from the loopback, or the bridge
		s.kept = nil
		if kept.here {
			return w.localIn(pl, dev, s)
		}
		return w.forward(pl, dev, s, *kept)
	}
	rt, flt := w.routeInput(pl, s, dev)
	if flt != nil {
		return w.stop(pl, s, Hop{Stage: Route, Device: dev.Name}, flt)
	}
	h := Hop{Stage: Route, Device: rt.dev, Route: rt.describe(), MTU: rt.mtu, Reason: routeText(rt, s.p.Dst)}
	if rt.here {
		h.Device = dev.Name
		w.hop(pl, s, h)
		return w.localIn(pl, dev, s)
	}
	h.Action = ForwardAction
	w.hop(pl, s, h)
	return w.forward(pl, dev, s, rt)
}

// otherHost is the check of a frame's destination: eth_type_trans marks what is
// for others, ip_rcv drops it.
func otherHost(pl *place, dev *datapath.Device, s *skb) *fault {
	if s.dmac == "" || plain(dev) || sameMAC(s.dmac, dev.MAC) || isBroadcastMAC(s.dmac) {
		return nil
	}
	f := &fault{
		reason: ReasonOtherHost, table: "neighbor", rule: s.neighbor,
		text: fmt.Sprintf("the frame that came by %s is for the MAC %s, but %s has %s", dev.Name, s.dmac, dev.Name, dev.MAC),
	}
	if s.neighborOf != "" {
		f.hint = fmt.Sprintf("%s has that MAC in its neighbour entry %q", s.neighborOf, s.neighbor)
	}
	return f
}

// forward is ip_forward (net/ipv4/ip_forward.c).
func (w *walk) forward(pl *place, dev *datapath.Device, s *skb, rt route) end {
	if s.p.TTL <= 1 {
		return w.stop(pl, s, Hop{Stage: Forward, Device: dev.Name, Hidden: true}, &fault{
			reason: ReasonTTL, table: "ttl", rule: fmt.Sprintf("ttl %d", s.p.TTL), icmp: &icmpError{typ: icmpTimeExceed},
			text: "the packet's time to live is used up, and this router would be one too many",
			hint: "a routing loop, or a TTL chosen small as traceroute does",
		})
	}
	if s.p.DF && rt.mtu > 0 && s.wire() > rt.mtu {
		flt := tooLong(s, rt)
		flt.icmp = &icmpError{typ: icmpUnreachable, code: codeFragNeeded, mtu: rt.mtu}
		return w.stop(pl, s, Hop{Stage: Forward, Device: dev.Name, MTU: rt.mtu, Hidden: true}, flt)
	}
	s.p.TTL--
	if v := w.hook(pl, s, hookPoint{stage: Forward, in: dev.Name, out: rt.dev, rt: &rt}); v != nil {
		return *v
	}
	return w.ipOutput(pl, s, rt)
}

// localIn is ip_local_deliver: INPUT, and whoever takes the protocol.
func (w *walk) localIn(pl *place, dev *datapath.Device, s *skb) end {
	if v := w.hook(pl, s, hookPoint{stage: Input, in: dev.Name}); v != nil {
		return *v
	}
	if take := w.tunnelEnd(pl, s); take != nil {
		return take(pl, dev, s)
	}
	return w.deliver(pl, dev, s)
}
