package observe

import (
	"slipway/datapath"
	"slipway/datapath/trace"

	"github.com/gopacket/gopacket/layers"
)

// Hops turns steps into hops, the request's and the reply's.
func Hops(steps []Step) (request, reply []trace.Hop) {
	for _, s := range steps {
		if s.Reply {
			reply = append(reply, s.hop())
		} else {
			request = append(request, s.hop())
		}
	}
	return request, reply
}

func (s Step) hop() trace.Hop {
	h := trace.Hop{
		Seq: s.Seq, Node: s.Place.Node, Namespace: s.Place.Label, Place: s.Place.Label, Device: s.Device, Packet: s.Packet.packet(),
		TimeNs: s.SinceStart.Nanoseconds(), SinceNs: s.Since.Nanoseconds(),
	}
	if h.Node == "" {
		h.Node = s.Place.Label
	}
	if s.Place.NS != nil {
		h.Namespace = s.Place.NS.Name()
	}
	h.Stage, h.Action, h.Reason = s.stage(), s.action(), s.reason()
	return h
}

func (s Step) stage() trace.Stage {
	for _, c := range s.Changes {
		switch c.Kind {
		case Encap:
			return trace.Encap
		case Decap:
			return trace.Decap
		}
	}
	return s.passage()
}

// passage is the stage of the sighting alone, whatever changed before it.
func (s Step) passage() trace.Stage {
	switch {
	case s.Place.Wire:
		return trace.Wire
	case s.Direction == Out:
		return trace.Egress
	default:
		return trace.Ingress
	}
}

// actions maps changes to actions, the most telling first. In a reply, putting
// an address back is what rewrites it.
var actions = []struct {
	kind   ChangeKind
	action trace.Action
}{
	{DNAT, trace.DNAT}, {SNAT, trace.SNAT}, {UnSNAT, trace.DNAT}, {UnDNAT, trace.SNAT},
	{Encap, trace.EncapAction}, {Decap, trace.DecapAction}, {Routed, trace.ForwardAction}, {CarrierRouted, trace.ForwardAction},
}

func (s Step) action() trace.Action {
	for _, a := range actions {
		for _, c := range s.Changes {
			if c.Kind == a.kind {
				return a.action
			}
		}
	}
	return trace.Pass
}

func (s Step) reason() string {
	for _, c := range s.Changes {
		switch c.Kind {
		case UnDNAT:
			return "source put back: " + c.From + " to " + c.To
		case UnSNAT:
			return "destination put back: " + c.From + " to " + c.To
		}
	}
	if s.DeadEnd {
		return "for another MAC: goes no further here"
	}
	if s.Reply && s.Packet.IP.ICMP != nil && s.Packet.IP.ICMP.IsError() {
		return Describe(s.Packet.IP)
	}
	return ""
}

// packet is a decoded packet in the form of traces.
func (d Decoded) packet() datapath.Packet {
	p := d.IP.packet()
	if d.Encap != NoEncap {
		p.Outer = &datapath.Outer{
			Type: string(d.Encap), Src: d.Outer.Src, Dst: d.Outer.Dst, SPort: d.Outer.SrcPort, DPort: d.Outer.DstPort, TTL: d.Outer.TTL,
		}
	}
	if d.Encap == EncapVXLAN {
		vni := d.VNI
		p.Outer.VNI = &vni
	}
	return p
}

func (p IPv4) packet() datapath.Packet {
	out := datapath.Packet{
		Src: p.Src, Dst: p.Dst, Proto: protocolName(p.Protocol), SPort: p.SrcPort, DPort: p.DstPort,
		TTL: p.TTL, Length: p.Length, ID: p.ID, DF: p.DF, Fragment: p.MoreFragments || p.FragmentOffset > 0,
	}
	if p.TCP != nil {
		out.Flags = p.TCP.flags(",")
	}
	if m := p.ICMP; m != nil {
		out.ICMP = &datapath.ICMPInfo{Type: m.Type, Code: m.Code, ID: m.ID, Seq: m.Seq, MTU: m.MTU}
		if m.Quoted != nil {
			quoted := m.Quoted.packet()
			out.ICMP.Quoted = &quoted
		}
	}
	return out
}

func protocolName(n uint8) string {
	switch layers.IPProtocol(n) {
	case layers.IPProtocolTCP:
		return "tcp"
	case layers.IPProtocolUDP:
		return "udp"
	case layers.IPProtocolICMPv4:
		return "icmp"
	case layers.IPProtocolSCTP:
		return "sctp"
	default:
		return layers.IPProtocol(n).String()
	}
}
