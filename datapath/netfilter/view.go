package netfilter

import (
	"fmt"
	"strings"

	"slipway/datapath"
)

// view is what rules see of a packet: its outermost IP packet.
type view struct {
	src, dst     uint32
	proto        uint8
	sport, dport uint16
	ttl          uint8
	length       int // 0: not known
	flags        uint8
	hasFlags     bool
	icmp         *datapath.ICMPInfo
	outer        bool
}

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// Bytes that a tunnel adds to the inner packet, from the outer IP header on:
// IP 20, UDP 8, VXLAN 8, Ethernet 14 (RFC 791, 768, 7348).
const (
	ipipBytes  = 20
	udpBytes   = 28
	vxlanBytes = 50
)

func newView(p datapath.Packet) (view, error) {
	if !p.Src.Is4() || !p.Dst.Is4() {
		return view{}, fmt.Errorf("not an IPv4 packet: %s", p)
	}
	if p.Outer != nil {
		return outerView(p)
	}
	n, ok := protocolNumber(p.Proto)
	if !ok {
		return view{}, fmt.Errorf("protocol %q is not known", p.Proto)
	}
	v := view{src: number(p.Src), dst: number(p.Dst), proto: n, sport: p.SPort, dport: p.DPort, ttl: p.TTL, length: p.Length, icmp: p.ICMP}
	v.flags, v.hasFlags = tcpFlags(p.Flags)
	return v, nil
}

func outerView(p datapath.Packet) (view, error) {
	o := p.Outer
	if !o.Src.Is4() || !o.Dst.Is4() {
		return view{}, fmt.Errorf("not carried by IPv4: %s", p)
	}
	v := view{src: number(o.Src), dst: number(o.Dst), proto: protoUDP, sport: o.SPort, dport: o.DPort, ttl: o.TTL, outer: true}
	more := 0
	switch o.Type {
	case "vxlan":
		more = vxlanBytes
	case "udp":
		more = udpBytes
	case "ipip":
		v.proto, more = 4, ipipBytes
	default:
		return view{}, fmt.Errorf("tunnel %q is not known", o.Type)
	}
	if p.Length > 0 {
		v.length = p.Length + more
	}
	return v, nil
}

// flagBits are the flags of TCP's header (RFC 9293 §3.1).
var flagBits = map[string]uint8{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}

// tcpFlags reads "SYN,ACK". ECN's two flags do not matter to rules.
func tcpFlags(s string) (bits uint8, ok bool) {
	if s == "" {
		return 0, false
	}
	for f := range strings.SplitSeq(s, ",") {
		b, known := flagBits[f]
		if !known && f != "ECE" && f != "CWR" {
			return 0, false
		}
		bits |= b
	}
	return bits, true
}
