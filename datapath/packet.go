package datapath

import (
	"fmt"
	"net/netip"
)

// Packet is one IPv4 packet as a hop of a trace shows it: what is predicted and
// what is observed have the same form. The JSON form is part of the command
// line's contract.
type Packet struct {
	Src    netip.Addr `json:"src"`
	Dst    netip.Addr `json:"dst"`
	Proto  string     `json:"proto"` // tcp | udp | icmp | sctp, or the number
	SPort  uint16     `json:"sport,omitempty"`
	DPort  uint16     `json:"dport,omitempty"`
	TTL    uint8      `json:"ttl"`
	Length int        `json:"length"` // bytes of the IP packet, header included
	Outer  *Outer     `json:"outer,omitempty"`

	ID uint16 `json:"id,omitempty"` // IP identification; zero if not known
	DF bool   `json:"df,omitempty"` // don't fragment
	// Fragment: the packet is, or goes on as, fragments. Of a prediction Length is
	// then the whole packet's, of an observation the first fragment's.
	Fragment bool      `json:"fragment,omitempty"`
	Mark     uint32    `json:"mark,omitempty"`  // skb mark, which does not leave the namespace
	Flags    string    `json:"flags,omitempty"` // TCP: "SYN", "SYN,ACK", "RST,ACK" …
	ICMP     *ICMPInfo `json:"icmp,omitempty"`
}

// ICMPInfo is an ICMP header (RFC 792).
type ICMPInfo struct {
	Type uint8  `json:"type"`
	Code uint8  `json:"code"`
	ID   uint16 `json:"id,omitempty"`  // echo
	Seq  uint16 `json:"seq,omitempty"` // echo
	MTU  uint16 `json:"mtu,omitempty"` // next-hop MTU of "fragmentation needed" (RFC 1191 §4)
	// Quoted is the packet that an error is about.
	Quoted *Packet `json:"quoted,omitempty"`
}

// IsError reports whether the message is about another packet (RFC 1122 §3.2.2).
func (m *ICMPInfo) IsError() bool {
	if m == nil {
		return false
	}
	switch m.Type {
	case 3, 4, 5, 11, 12: // unreachable, source quench, redirect, time exceeded, parameter problem
		return true
	}
	return false
}

// Outer is the packet that carries another one in a tunnel.
type Outer struct {
	Type  string     `json:"type"` // vxlan | udp | ipip
	Src   netip.Addr `json:"src"`
	Dst   netip.Addr `json:"dst"`
	VNI   *uint32    `json:"vni,omitempty"` // VXLAN only, where zero is a value
	SPort uint16     `json:"sport,omitempty"`
	DPort uint16     `json:"dport,omitempty"`
	TTL   uint8      `json:"ttl,omitempty"`
}

// Source is the source address with its port, zero where there are no ports.
func (p Packet) Source() netip.AddrPort { return netip.AddrPortFrom(p.Src, p.SPort) }

// Destination is the destination address with its port, zero where there are no ports.
func (p Packet) Destination() netip.AddrPort { return netip.AddrPortFrom(p.Dst, p.DPort) }

// String is "tcp 10.244.1.2:40000 → 10.96.0.10:8080 ttl 64".
func (p Packet) String() string {
	src, dst := p.Src.String(), p.Dst.String()
	if p.SPort != 0 || p.DPort != 0 {
		src, dst = p.Source().String(), p.Destination().String()
	}
	return fmt.Sprintf("%s %s → %s ttl %d", p.Proto, src, dst, p.TTL)
}
