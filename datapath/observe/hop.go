package observe

import (
	"net/netip"

	"github.com/gopacket/gopacket/layers"
)

// Hop is a step in the JSON form that all traces have (DESIGN.md §3).
type Hop struct {
	Seq       int       `json:"seq"`
	Node      string    `json:"node"`
	Namespace string    `json:"namespace"`
	Device    string    `json:"device"`
	Stage     string    `json:"stage"`  // wire | ingress | egress | encap | decap
	Action    string    `json:"action"` // pass | forward | dnat | snat | encap | decap
	Packet    HopPacket `json:"packet"`
	// TimeNs counts from the request's first sighting, SinceNs from the hop before.
	TimeNs  int64  `json:"timeNs"`
	SinceNs int64  `json:"sinceNs"`
	Reason  string `json:"reason,omitempty"`
}

// HopPacket is the packet as it is at a hop.
type HopPacket struct {
	Src    netip.Addr `json:"src"`
	Dst    netip.Addr `json:"dst"`
	Proto  string     `json:"proto"`
	SPort  uint16     `json:"sport,omitempty"`
	DPort  uint16     `json:"dport,omitempty"`
	TTL    uint8      `json:"ttl"`
	Length int        `json:"length"` // bytes of the IP packet
	Outer  *HopOuter  `json:"outer,omitempty"`
}

// HopOuter is the packet that carries it in a tunnel.
type HopOuter struct {
	Type  Encapsulation `json:"type"`
	Src   netip.Addr    `json:"src"`
	Dst   netip.Addr    `json:"dst"`
	VNI   *uint32       `json:"vni,omitempty"` // VXLAN only, where zero is a value
	SPort uint16        `json:"sport,omitempty"`
	DPort uint16        `json:"dport,omitempty"`
}

// Hops turns steps into hops, the request's and the reply's.
func Hops(steps []Step) (request, reply []Hop) {
	for _, s := range steps {
		if s.Reply {
			reply = append(reply, s.hop())
		} else {
			request = append(request, s.hop())
		}
	}
	return request, reply
}

func (s Step) hop() Hop {
	h := Hop{
		Seq: s.Seq, Node: s.Place.Node, Namespace: s.Place.Label, Device: s.Device, Packet: s.Packet.hop(),
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

func (s Step) stage() string {
	for _, c := range s.Changes {
		if c.Kind == Encap || c.Kind == Decap {
			return string(c.Kind)
		}
	}
	switch {
	case s.Place.Wire:
		return "wire"
	case s.Direction == Out:
		return "egress"
	default:
		return "ingress"
	}
}

// actions maps changes to actions, the most telling first. In a reply, putting
// an address back is what rewrites it.
var actions = []struct {
	kind   ChangeKind
	action string
}{
	{DNAT, "dnat"}, {SNAT, "snat"}, {UnSNAT, "dnat"}, {UnDNAT, "snat"},
	{Encap, "encap"}, {Decap, "decap"}, {Routed, "forward"}, {CarrierRouted, "forward"},
}

func (s Step) action() string {
	for _, a := range actions {
		for _, c := range s.Changes {
			if c.Kind == a.kind {
				return a.action
			}
		}
	}
	return "pass"
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

func (d Decoded) hop() HopPacket {
	p := HopPacket{
		Src: d.IP.Src, Dst: d.IP.Dst, Proto: protocolName(d.IP.Protocol),
		SPort: d.IP.SrcPort, DPort: d.IP.DstPort, TTL: d.IP.TTL, Length: d.IP.Length,
	}
	if d.Encap != NoEncap {
		p.Outer = &HopOuter{Type: d.Encap, Src: d.Outer.Src, Dst: d.Outer.Dst, SPort: d.Outer.SrcPort, DPort: d.Outer.DstPort}
	}
	if d.Encap == EncapVXLAN {
		vni := d.VNI
		p.Outer.VNI = &vni
	}
	return p
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
