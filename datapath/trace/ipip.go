package trace

import (
	"fmt"

	"slipway/datapath"
	"slipway/topology"
)

// ipipOverhead is one IPv4 header (RFC 2003).
const ipipOverhead = 20

// protoIPIP is IP in IP (IANA protocol numbers).
const protoIPIP = "4"

// The ways in which tunl0 is served.
const (
	ipipKernel    = topology.IPIPKernel
	ipipEBPF      = topology.IPIPeBPF
	ipipUserspace = topology.IPIPUserspace
)

// ipipKind is who encapsulates: what the state says, else what the device is.
func ipipKind(pl *place, dev *datapath.Device) topology.IPIPImplementation {
	switch i := pl.st.IPIP.Implementation; {
	case i == ipipKernel || i == ipipEBPF || i == ipipUserspace:
		return i
	case dev != nil && dev.Kind == "ipip":
		return ipipKernel
	case dev != nil && len(dev.Egress) > 0:
		return ipipEBPF
	}
	return ipipUserspace
}

func servesIPIP(pl *place, dev *datapath.Device) bool {
	return pl.st.IPIP != nil && pl.st.IPIP.Device == dev.Name
}

// ipipTransmit puts a packet into another one to the route's gateway
// (net/ipv4/ip_tunnel.c, ip_tunnel_xmit; datapath/bpf/ipip.c, ipip_encap).
func (w *walk) ipipTransmit(pl *place, dev *datapath.Device, s *skb) end {
	t := pl.st.IPIP
	at := Hop{Stage: Encap, Device: dev.Name}
	if !t.Attached {
		return w.stop(pl, s, at, ipipDown(pl, dev.Name))
	}
	rt, flt := w.routeOutput(pl, flow{dst: s.p.Dst, oif: dev.Name})
	if flt != nil || rt.gw == s.p.Dst {
		return w.stop(pl, s, at, &fault{
			reason: ReasonNoRoute, table: "main", text: fmt.Sprintf("no route through %s names the node behind which %s is", dev.Name, s.p.Dst),
		})
	}
	s.forget()
	outer := &skb{inner: s, tunnel: "ipip", p: datapath.Packet{
		Src: t.Local, Dst: rt.gw, Proto: protoIPIP, TTL: s.p.TTL, DF: s.p.DF, Length: s.wire() + ipipOverhead, Mark: s.p.Mark,
	}}
	at.Route = rt.describe()
	at.Reason = fmt.Sprintf("the route to %s names %s: the packet goes there inside another one (IP in IP)", s.p.Dst, rt.gw)
	if ipipKind(pl, dev) != ipipEBPF {
		return w.sendOuter(pl, outer, "", at)
	}
	at.Action = EncapAction
	w.hop(pl, outer, at)
	return w.redirectNeighbor(pl, outer, t.Underlay)
}

func ipipDown(pl *place, device string) *fault {
	return &fault{
		reason: ReasonTunnelDown, table: "tunnel", rule: device,
		text: fmt.Sprintf("nothing serves %s%s", device, because(pl.st.IPIP.Problem)),
		hint: "tc filter show dev " + device + " egress on " + pl.label(),
	}
}

// redirectNeighbor is bpf_redirect_neigh (net/core/filter.c): out by a device,
// past netfilter, with the neighbour that a route names.
func (w *walk) redirectNeighbor(pl *place, s *skb, device string) end {
	at := Hop{Stage: Egress, Device: device}
	dev := pl.devices[device]
	if dev == nil {
		return w.stop(pl, s, at, unknownFault("link", device, "device %s is not in the collected state", device))
	}
	rt, flt := w.routeOutput(pl, flow{dst: s.p.Dst, src: s.p.Src, mark: s.p.Mark, oif: device})
	if flt != nil {
		return w.refuse(pl, s, Hop{Stage: Route, Device: device}, flt)
	}
	mac, flt := w.neighbor(pl, dev, rt.gw, s)
	if flt != nil {
		at.Hidden = true
		return w.stop(pl, s, at, flt)
	}
	s.smac, s.dmac = dev.MAC, mac
	return w.transmit(pl, dev, s)
}

// takesIPIP reports whether the program on the underlay device's ingress takes
// the packet (datapath/bpf/ipip.c, ipip_decap).
func takesIPIP(pl *place, dev *datapath.Device, s *skb) bool {
	t := pl.st.IPIP
	return t != nil && t.Attached && s.tunnel == "ipip" && s.inner != nil && t.Underlay == dev.Name &&
		ipipKind(pl, pl.devices[t.Device]) == ipipEBPF && s.p.Dst == t.Local
}

// ipipDecap unwraps a packet and lets tunl0 receive it.
func (w *walk) ipipDecap(pl *place, _ *datapath.Device, outer *skb) end {
	s, t := outer.inner, pl.st.IPIP
	s.smac, s.dmac = "", ""
	s.p.Mark = outer.p.Mark
	w.hop(pl, s, Hop{Stage: Decap, Device: t.Device, Action: DecapAction, Reason: "the packet inside is unwrapped and received by " + t.Device})
	return w.receive(pl, t.Device, s)
}

// ipipReceive is tunl0 of the kernel, or of a process, at the end of the stack.
func (w *walk) ipipReceive(pl *place, in *datapath.Device, outer *skb) end {
	t := pl.st.IPIP
	if kind := ipipKind(pl, pl.devices[t.Device]); !t.Attached || kind == ipipEBPF {
		return w.stop(pl, outer, Hop{Stage: Decap, Device: in.Name}, ipipDown(pl, t.Device))
	}
	return w.ipipDecap(pl, in, outer)
}
