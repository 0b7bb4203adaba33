package trace

import (
	"fmt"

	"slipway/datapath"
)

// With net.bridge.bridge-nf-call-iptables set, iptables see what a bridge
// forwards too (net/bridge/br_netfilter_hooks.c).

// bridgePrerouting is br_nf_pre_routing: PREROUTING comes before the bridge
// decides, with the bridge as the input device.
func (w *walk) bridgePrerouting(pl *place, br, port *datapath.Device, s *skb) end {
	s.bridged = &bridged{bridge: br.Name, in: port.Name}
	before := s.p.Dst
	if e := w.hook(pl, s, hookPoint{stage: Prerouting, in: br.Name}); e != nil {
		return *e
	}
	if s.p.Dst == before {
		return w.bridgeFrame(pl, br, port, s)
	}
	return w.bridgedDNAT(pl, br, port, s)
}

// bridgedDNAT is br_nf_pre_routing_finish for a packet whose destination was
// rewritten: it is routed, and if its way leads back to this bridge, bridged to
// its new neighbour; else it goes up to be forwarded.
func (w *walk) bridgedDNAT(pl *place, br, port *datapath.Device, s *skb) end {
	rt, flt := w.routeInput(pl, s, br)
	if flt != nil && flt.reason == ReasonForwardingOff {
		// Traffic that stays in the bridge does not need forwarding.
		again, bad := w.routeOutput(pl, flow{dst: s.p.Dst, mark: s.p.Mark})
		if bad == nil && again.dev == br.Name {
			rt, flt = again, nil
		}
	}
	if flt != nil {
		flt.icmp = nil
		return w.stop(pl, s, Hop{Stage: Route, Device: br.Name}, flt)
	}
	h := Hop{Stage: Route, Device: rt.dev, Route: rt.describe(), MTU: rt.mtu, Reason: routeText(rt, s.p.Dst)}
	if rt.dev != br.Name {
		w.hop(pl, s, h)
		s.dmac = br.MAC
		s.kept = &rt
		return w.bridgeFrame(pl, br, port, s)
	}
	h.Reason += ": the bridge itself forwards the packet, with its new destination"
	w.hop(pl, s, h)
	mac, flt := w.neighbor(pl, br, rt.gw, s)
	if flt != nil {
		return w.stop(pl, s, Hop{Stage: BridgeStage, Device: br.Name}, flt)
	}
	w.learn(pl, br, s.smac, port.Name)
	s.smac, s.dmac = br.MAC, mac
	// Where the kernel has the neighbour's frame header at hand it skips this
	// (br_nf_pre_routing_finish_bridge), so that it may be seen or not.
	w.hop(pl, s, Hop{Stage: Egress, Device: br.Name, Neighbor: s.neighbor, Hidden: true, Reason: egressText(br, s)})
	return w.bridgeForward(pl, br, port, s)
}

// bridgedForward is br_nf_forward and br_nf_post_routing: what stays in the
// bridge passes FORWARD and POSTROUTING with the bridge as both devices.
func (w *walk) bridgedForward(pl *place, br, out *datapath.Device, s *skb) *end {
	rt := &route{dev: br.Name, gw: s.p.Dst, mtu: br.MTU}
	at := hookPoint{stage: Forward, in: br.Name, out: br.Name, physOut: out.Name, rt: rt}
	if e := w.hook(pl, s, at); e != nil {
		return viaBridge(e)
	}
	at = hookPoint{stage: Postrouting, out: br.Name, physOut: out.Name, rt: rt}
	if e := w.hook(pl, s, at); e != nil {
		return viaBridge(e)
	}
	s.bridged = nil
	return nil
}

// viaBridge says of a packet that a rule stopped that it was only bridged.
func viaBridge(e *end) *end {
	if e.cause != nil && e.cause.Reason == ReasonRuleDrop {
		e.cause.Hint = fmt.Sprintf("the packet stays in its bridge; iptables see it because net.bridge.bridge-nf-call-iptables is 1. %s", e.cause.Hint)
	}
	return e
}
