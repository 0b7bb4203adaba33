package ipiptun

import (
	"encoding/binary"
	"net/netip"
)

// Fields of the IPv4 header (RFC 791, section 3.1).
const (
	headerLen    = 20
	protocolIPIP = 4 // IANA protocol number, RFC 2003
	flagDF       = 0x40
	ecnMask      = 3 // RFC 3168, the low bits of TOS
	ecnCE        = 3
	ecnECT0      = 2
)

// putOuter writes the outer header for the inner packet that follows it at
// b[headerLen:], as ip_tunnel_xmit (linux net/ipv4/ip_tunnel.c) does for
// "ttl inherit tos 0": TTL and DF are the inner packet's, of TOS only the ECN
// bits are (RFC 6040). The raw socket fills in the checksum.
func putOuter(b []byte, id uint16, src, dst netip.Addr) {
	inner := b[headerLen:]
	ecn := inner[1] & ecnMask
	if ecn == ecnCE {
		ecn = ecnECT0
	}
	b[0], b[1] = 0x45, ecn
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[4:], id)
	b[6], b[7] = inner[6]&flagDF, 0
	b[8], b[9] = inner[8], protocolIPIP
	b[10], b[11] = 0, 0
	s, d := src.As4(), dst.As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
}

// innerOf returns the IPv4 packet inside an IPIP packet, false if there is no
// whole one. Congestion marked on the outer header is handed on; where the inner
// packet cannot bear the mark it is lost (RFC 6040, section 4.2).
func innerOf(outer []byte) ([]byte, bool) {
	if len(outer) < headerLen || outer[0]>>4 != 4 {
		return nil, false
	}
	ihl := int(outer[0]&15) * 4
	if ihl < headerLen || len(outer) < ihl+headerLen {
		return nil, false
	}
	inner := outer[ihl:]
	total := int(binary.BigEndian.Uint16(inner[2:]))
	if inner[0]>>4 != 4 || int(inner[0]&15)*4 < headerLen || total < int(inner[0]&15)*4 || total > len(inner) {
		return nil, false
	}
	inner = inner[:total]
	if outer[1]&ecnMask == ecnCE && !markCE(inner) {
		return nil, false
	}
	return inner, true
}

// markCE sets congestion experienced and mends the checksum (RFC 1624,
// equation 3); false for a packet that is not ECN capable.
func markCE(p []byte) bool {
	if p[1]&ecnMask == 0 {
		return false
	}
	before := binary.BigEndian.Uint16(p)
	p[1] |= ecnCE
	after := binary.BigEndian.Uint16(p)
	sum := uint32(^binary.BigEndian.Uint16(p[10:])) + uint32(^before) + uint32(after)
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return true
}
