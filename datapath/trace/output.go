package trace

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// send is a packet that the namespace's own stack sends: from a socket, or as
// the kernel's answer.
func (w *walk) send(pl *place, s *skb, why string) end {
	if pl.err != nil {
		return w.lost(pl, s, Socket, "")
	}
	q := flow{dst: s.p.Dst, src: s.p.Src, mark: s.p.Mark}
	rt, flt := w.routeOutput(pl, q)
	if flt == nil && !s.p.Src.IsValid() {
		// As connect() does: the source is chosen by a first lookup, and may
		// change the second one (include/net/route.h, ip_route_connect).
		s.p.Src, q.src = rt.src, rt.src
		if !rt.src.IsValid() {
			flt = &fault{reason: ReasonNoRoute, table: "link", text: "there is no address that could be the packet's source"}
		} else {
			rt, flt = w.routeOutput(pl, q)
		}
	}
	if !w.back {
		w.sent = s.p
	}
	w.hop(pl, s, Hop{Stage: Socket, Reason: why + " " + s.shown().String()})
	if flt != nil {
		return w.refuse(pl, s, Hop{Stage: Route}, flt)
	}
	w.hop(pl, s, Hop{Stage: Route, Device: rt.dev, Route: rt.describe(), MTU: rt.mtu, Reason: routeText(rt, s.p.Dst)})
	if s.p.DF && rt.mtu > 0 && s.p.Length > rt.mtu {
		return w.refuse(pl, s, Hop{Stage: Socket, Device: rt.dev, MTU: rt.mtu}, tooLong(s, rt))
	}
	return w.localOut(pl, s, rt)
}

// refuse ends a packet in the kernel of its sender, which an error of the
// system call tells.
func (w *walk) refuse(pl *place, s *skb, h Hop, flt *fault) end {
	flt.icmp, flt.told = nil, !w.back && s.inner == nil
	return w.stop(pl, s, h, flt)
}

func tooLong(s *skb, rt route) *fault {
	return &fault{
		reason: ReasonMTU, table: "link", rule: fmt.Sprintf("%s mtu %d", rt.dev, rt.mtu),
		text: fmt.Sprintf("the packet of %d bytes may not be fragmented (DF) and does not fit %s, whose MTU is %d", s.p.Length, rt.dev, rt.mtu),
		hint: fmt.Sprintf("send at most %d bytes, or without DF", rt.mtu),
	}
}

func routeText(rt route, dst netip.Addr) string {
	if rt.here {
		return fmt.Sprintf("%s is an address of this machine itself", dst)
	}
	if rt.gw == dst {
		return fmt.Sprintf("%s is on the link of %s", dst, rt.dev)
	}
	return fmt.Sprintf("the next hop to %s is %s, by %s", dst, rt.gw, rt.dev)
}

// localOut is __ip_local_out: OUTPUT, another route if a rule changed what the
// first one was looked up by, and on (net/ipv4/ip_output.c).
func (w *walk) localOut(pl *place, s *skb, rt route) end {
	before := s.p
	v := w.hook(pl, s, hookPoint{stage: Output, out: rt.dev, rt: &rt})
	if v != nil {
		return *v
	}
	if s.p.Dst != before.Dst || s.p.Mark != before.Mark || s.p.Src != before.Src {
		// net/ipv4/netfilter.c, ip_route_me_harder.
		again, flt := w.routeOutput(pl, flow{dst: s.p.Dst, src: s.p.Src, mark: s.p.Mark})
		if flt != nil {
			return w.refuse(pl, s, Hop{Stage: Route}, flt)
		}
		if again.dev != rt.dev || again.gw != rt.gw {
			w.hop(pl, s, Hop{Stage: Route, Device: again.dev, Route: again.describe(), MTU: again.mtu, Reason: "routed again, since rules changed the packet: " + routeText(again, s.p.Dst)})
		}
		rt = again
	}
	return w.ipOutput(pl, s, rt)
}

// ipOutput is ip_output and ip_finish_output: POSTROUTING, fragments, the
// neighbour, the device (net/ipv4/ip_output.c).
func (w *walk) ipOutput(pl *place, s *skb, rt route) end {
	if v := w.hook(pl, s, hookPoint{stage: Postrouting, out: rt.dev, rt: &rt}); v != nil {
		return *v
	}
	dev := pl.devices[rt.dev]
	if dev == nil {
		return w.stop(pl, s, Hop{Stage: Egress, Device: rt.dev}, unknownFault("link", rt.dev, "device %s is not in the collected state", rt.dev))
	}
	if rt.mtu > 0 && s.wire() > rt.mtu {
		if s.p.DF { // a rule, or a tunnel, made it too long: ip_fragment
			flt := tooLong(s, rt)
			flt.icmp = &icmpError{typ: icmpUnreachable, code: codeFragNeeded, mtu: rt.mtu}
			return w.stop(pl, s, Hop{Stage: Egress, Device: rt.dev, MTU: rt.mtu}, flt)
		}
		w.note("%s sends the packet of %d bytes by %s in fragments: the MTU is %d", pl.label(), s.p.Length, rt.dev, rt.mtu)
		s.cut(rt.mtu)
	}
	if rt.dev == loopbackIIf {
		s.kept = &rt
		return w.transmit(pl, dev, s)
	}
	mac, flt := w.neighbor(pl, dev, rt.gw, s)
	if flt != nil {
		// The packet waits for its neighbour and never comes to the device.
		return w.stop(pl, s, Hop{Stage: Egress, Device: dev.Name, MTU: dev.MTU, Hidden: true}, flt)
	}
	s.smac, s.dmac = dev.MAC, mac
	return w.transmit(pl, dev, s)
}

// plain reports whether a device has no link layer addresses to find: what is
// sent needs no neighbour (net/ipv4/arp.c, arp_constructor).
func plain(d *datapath.Device) bool {
	return d.NoARP || d.MAC == "" || d.Kind == "loopback" || d.Kind == "ipip" || d.MAC == "00:00:00:00:00:00"
}
