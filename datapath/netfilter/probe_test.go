package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// probe is a packet to send.
type probe struct {
	datapath.Packet
	payload int
}

// bytes is the packet, with right checksums.
func (p probe) bytes() []byte {
	proto, _ := protocolNumber(p.Proto)
	var l4 []byte
	switch proto {
	case protoTCP:
		flags, _ := tcpFlags(p.Flags)
		l4 = make([]byte, 24+p.payload)
		binary.BigEndian.PutUint32(l4[4:], 1000)
		if flags&flagBits["ACK"] != 0 {
			binary.BigEndian.PutUint32(l4[8:], 1001)
		}
		l4[12], l4[13] = 6<<4, flags
		binary.BigEndian.PutUint16(l4[14:], 65535)
		copy(l4[20:], []byte{2, 4, 1460 >> 8, 1460 & 0xff}) // maximum segment size
	case protoUDP:
		l4 = make([]byte, 8+p.payload)
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	case protoICMP:
		l4 = make([]byte, 8+p.payload)
		l4[0], l4[1] = p.ICMP.Type, p.ICMP.Code
		binary.BigEndian.PutUint16(l4[4:], p.ICMP.ID)
		if p.ICMP.Quoted != nil {
			q := probe{Packet: *p.ICMP.Quoted}.bytes()
			l4 = append(l4[:8], q...)
		}
	default:
		l4 = make([]byte, 8+p.payload)
	}
	if proto == protoTCP || proto == protoUDP {
		binary.BigEndian.PutUint16(l4, p.SPort)
		binary.BigEndian.PutUint16(l4[2:], p.DPort)
	}
	b := make([]byte, 20, 20+len(l4))
	b[0], b[8], b[9] = 0x45, p.TTL, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
	binary.BigEndian.PutUint16(b[4:], p.ID)
	src, dst := p.Src.As4(), p.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], checksum(b, 0))
	if at, ok := map[uint8]int{protoTCP: 16, protoUDP: 6, protoICMP: 2}[proto]; ok {
		sum := uint32(0)
		if proto != protoICMP {
			sum = uint32(proto) + uint32(len(l4))
			for i := 12; i < 20; i += 2 {
				sum += uint32(b[i])<<8 | uint32(b[i+1])
			}
		}
		binary.BigEndian.PutUint16(l4[at:], checksum(l4, sum))
	}
	return append(b, l4...)
}

// checksum is RFC 1071.
func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// packet is the first of a connection, or one that fits to none.
func (g *generator) packet() probe {
	g.id++
	g.port++
	p := probe{payload: g.IntN(3) * 30}
	p.Src, p.Dst = netip.MustParseAddr(g.one(sources...)), netip.MustParseAddr(g.one(destinations...))
	p.SPort, p.TTL, p.ID = g.port, []uint8{64, 63, 10}[g.IntN(3)], g.id
	dport := 0
	_, _ = fmt.Sscan(g.one(destPorts...), &dport)
	p.DPort = uint16(dport)
	switch n := g.IntN(10); {
	case n < 4:
		p.Proto, p.Flags = "tcp", "SYN"
		if g.chance(15) {
			p.Flags = g.one("ACK", "RST", "SYN,ACK", "FIN,ACK")
		}
	case n < 7:
		p.Proto = "udp"
	case n < 9:
		p.Proto, p.ICMP = "icmp", &datapath.ICMPInfo{Type: 8, ID: g.port}
		if g.chance(15) {
			p.ICMP.Type = 0
		}
	case g.other: // no ports to tell connections apart: one is enough
		p.Proto = "udp"
	default:
		g.other = true
		p.Proto, p.Src = "253", netip.AddrFrom4([4]byte{10, 77, byte(g.port >> 8), byte(g.port)})
	}
	if p.ICMP != nil || p.Proto == "253" {
		p.SPort, p.DPort = 0, 0
	}
	p.Length = len(p.bytes())
	return p
}
