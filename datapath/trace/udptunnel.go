package trace

import (
	"fmt"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// udpOverhead is what flannel's UDP backend adds to a packet: IPv4 and UDP.
const udpOverhead = 20 + 8

// unreachableTTL is the TTL of the tunnel's own ICMP errors (flannel
// pkg/backend/udp/proxy_amd64.c, send_net_unreachable).
const unreachableTTL = 8

func servesUDPTunnel(pl *place, dev *datapath.Device) bool {
	return pl.st.UDPTunnel != nil && pl.st.UDPTunnel.Device == dev.Name
}

// servedUDP reports whether the tunnel's process has the packet's port open.
func servedUDP(pl *place, p datapath.Packet) bool {
	t := pl.st.UDPTunnel
	running := t != nil && t.Running
	if isProgrammed(t) { // taking in needs no leases
		under := pl.devices[t.Underlay]
		running = under != nil && slices.ContainsFunc(under.Ingress, func(name string) bool { return strings.HasPrefix(name, "slipway-udp-decap") })
	}
	return running && t.Local.Port() == p.DPort && (unspecified(t.Local.Addr()) || t.Local.Addr() == p.Dst)
}

// udpTransmit is flannel's UDP backend at the sending node: a process reads the
// packet from the TUN, finds its lease and sends it in a datagram
// (datapath/udptun, route).
func (w *walk) udpTransmit(pl *place, dev *datapath.Device, s *skb) end {
	t := pl.st.UDPTunnel
	at := Hop{Stage: Userspace, Device: dev.Name}
	if isProgrammed(t) {
		return w.programTransmit(pl, dev, s)
	}
	if !t.Running {
		return w.stop(pl, s, Hop{Stage: Egress, Device: dev.Name}, &fault{
			reason: ReasonTunnelDown, table: "tunnel", rule: dev.Name,
			text: fmt.Sprintf("no process reads %s%s", dev.Name, because(t.Problem)),
			hint: "start the process that serves the tunnel on " + pl.label(),
		})
	}
	lease := leaseOf(t, s)
	if lease == nil {
		return w.noLease(pl, dev, s, at)
	}
	if flt := spendTTL(s); flt != nil {
		return w.stop(pl, s, at, flt)
	}
	s.forget()
	s.p.Mark = 0
	outer := &skb{inner: s, tunnel: "udp", p: datapath.Packet{
		Src: t.Local.Addr(), SPort: t.Local.Port(), Dst: lease.Remote.Addr(), DPort: lease.Remote.Port(),
		Proto: "udp", TTL: pl.sysctlTTL(), Length: s.wire() + udpOverhead,
	}}
	at.Reason = fmt.Sprintf("the process behind %s finds %s in the lease %s of %s and sends the packet there by UDP", dev.Name, s.p.Dst, lease.Subnet, lease.Remote)
	return w.sendOuter(pl, outer, "", at)
}

// programmedTTL is the outer packets' (datapath/bpf/udp.c, OUTER_TTL).
const programmedTTL = 64

// isProgrammed reports whether eBPF programs are what the tunnel consists of.
func isProgrammed(t *datapath.UDPTunnelState) bool {
	return t != nil && t.Implementation == topology.UDPeBPF
}

// programTransmit is the program on flannel0's egress: it finds the packet's lease
// and sends it by the underlay device, past netfilter (datapath/bpf/udp.c, udp_encap).
func (w *walk) programTransmit(pl *place, dev *datapath.Device, s *skb) end {
	t := pl.st.UDPTunnel
	at := Hop{Stage: Encap, Device: dev.Name}
	switch {
	case len(dev.Egress) == 0:
		return w.stop(pl, s, at, programsDown(pl))
	case !t.Running: // with which leases is not known
		return w.stop(pl, s, at, unknownFault("tunnel", dev.Name, "the BPF programs are not as they should be%s", because(t.Problem)))
	}
	lease := leaseOf(t, s)
	if lease == nil {
		return w.noLease(pl, dev, s, at)
	}
	if flt := spendTTL(s); flt != nil {
		return w.stop(pl, s, at, flt)
	}
	s.forget()
	outer := &skb{inner: s, tunnel: "udp", p: datapath.Packet{
		Src: t.Local.Addr(), SPort: t.Local.Port(), Dst: lease.Remote.Addr(), DPort: lease.Remote.Port(),
		Proto: "udp", TTL: programmedTTL, DF: true, Length: s.wire() + udpOverhead, Mark: s.p.Mark,
	}}
	at.Action = EncapAction
	at.Reason = fmt.Sprintf("the BPF program of %s finds %s in the lease %s of %s and sends the packet there by UDP", dev.Name, s.p.Dst, lease.Subnet, lease.Remote)
	w.hop(pl, outer, at)
	return w.redirectNeighbor(pl, outer, t.Underlay)
}

func programsDown(pl *place) *fault {
	t := pl.st.UDPTunnel
	return &fault{
		reason: ReasonTunnelDown, table: "tunnel", rule: t.Device,
		text: fmt.Sprintf("nothing serves %s%s", t.Device, because(t.Problem)),
		hint: fmt.Sprintf("tc filter show dev %s egress and dev %s ingress on %s", t.Device, t.Underlay, pl.label()),
	}
}

// forProgram reports whether a datagram is for the program on the underlay device's
// ingress. Most that are not from a tunnel, it drops.
func forProgram(pl *place, dev *datapath.Device, s *skb) bool {
	t := pl.st.UDPTunnel
	return isProgrammed(t) && t.Underlay == dev.Name &&
		s.p.Proto == "udp" && s.p.Dst == t.Local.Addr() && s.p.DPort == t.Local.Port()
}

// leaseOf finds the lease of a packet's destination by longest prefix.
func leaseOf(t *datapath.UDPTunnelState, s *skb) *datapath.TunnelLease {
	var best *datapath.TunnelLease
	for i := range t.Leases {
		l := &t.Leases[i]
		if prefixHolds(l.Subnet, s.p.Dst) && (best == nil || l.Subnet.Bits() > best.Subnet.Bits()) {
			best = l
		}
	}
	return best
}

// noLease ends a packet that no lease covers. The process answers in the name
// of the destination, about everything but ICMP.
func (w *walk) noLease(pl *place, dev *datapath.Device, s *skb, at Hop) end {
	f := &fault{
		reason: ReasonNoLease, table: "tunnel", rule: dev.Name,
		text: fmt.Sprintf("no lease holds %s: no node is known to have it", s.p.Dst),
		hint: "is the node that has the subnet registered?",
	}
	e := w.stop(pl, s, at, f)
	if s.p.ICMP != nil {
		return e
	}
	quoted := s.p
	e.verdict = Rejected
	e.answer = &answer{from: pl, by: dev.Name, s: &skb{p: datapath.Packet{
		Src: s.p.Dst, Dst: s.p.Src, Proto: "icmp", TTL: unreachableTTL, Length: 28 + 28,
		ICMP: &datapath.ICMPInfo{Type: icmpUnreachable, Code: codeNetUnreachable, Quoted: &quoted},
	}}}
	return e
}

// spendTTL takes one off the TTL, as each pass through the tunnel does.
func spendTTL(s *skb) *fault {
	if s.p.TTL <= 1 {
		return &fault{reason: ReasonTTL, table: "ttl", rule: fmt.Sprintf("ttl %d", s.p.TTL), text: "the packet's time to live is used up in the UDP tunnel, which tells nobody"}
	}
	s.p.TTL--
	return nil
}

// udpReceive is the other end: the process takes the packet out of the datagram
// and writes it to its TUN.
func (w *walk) udpReceive(pl *place, _ *datapath.Device, outer *skb) end {
	device, s := pl.st.UDPTunnel.Device, outer.inner
	at := Hop{Stage: Userspace, Device: device}
	if flt := spendTTL(s); flt != nil {
		return w.stop(pl, s, at, flt)
	}
	s.smac, s.dmac = "", ""
	if isProgrammed(pl.st.UDPTunnel) {
		s.p.Mark = outer.p.Mark
		at.Stage, at.Action = Decap, DecapAction
		at.Reason = fmt.Sprintf("the packet inside is unwrapped and received by %s", device)
		w.hop(pl, s, at)
		return w.receive(pl, device, s)
	}
	at.Action, at.Reason = DecapAction, fmt.Sprintf("the process behind %s unwraps the packet and writes it to %s", device, device)
	w.hop(pl, s, at)
	return w.receive(pl, device, s)
}
