package udptun

import (
	"encoding/binary"
	"net/netip"
)

// Offsets in an IPv4 header (RFC 791 §3.1) and the parts of its fragment field.
const (
	offTOS   = 1
	offLen   = 2
	offID    = 4
	offFrag  = 6
	offTTL   = 8
	offProto = 9
	offCheck = 10
	offSrc   = 12
	offDst   = 16
	minIP    = 20

	dontFragment = 0x4000
	fragMask     = 0x3fff // more-fragments and the offset

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

// ipHeaderLen is the length of a header that checkIPv4 has passed.
func ipHeaderLen(p []byte) int { return int(p[0]&15) * 4 }

// checkIPv4 says why p is not exactly one IPv4 packet; dropNone if it is.
func checkIPv4(p []byte) DropReason {
	if len(p) > 0 && p[0]>>4 != 4 {
		return dropNotIPv4
	}
	if len(p) < minIP {
		return dropMalformed
	}
	if h := ipHeaderLen(p); h < minIP || h > len(p) || int(binary.BigEndian.Uint16(p[offLen:])) != len(p) {
		return dropMalformed
	}
	return dropNone
}

// decrementTTL takes one off the TTL and patches the header checksum (RFC 1624,
// as the kernel's ip_decrease_ttl does); false if the packet has to be dropped.
func decrementTTL(p []byte) bool {
	if p[offTTL] <= 1 {
		return false
	}
	p[offTTL]--
	check := uint32(binary.BigEndian.Uint16(p[offCheck:])) + 0x0100
	if check >= 0xffff {
		check++
	}
	binary.BigEndian.PutUint16(p[offCheck:], uint16(check))
	return true
}

// setIPSum computes the header checksum anew.
func setIPSum(h []byte) {
	h[offCheck], h[offCheck+1] = 0, 0
	putSum(h[offCheck:], ^fold(sum(0, h)))
}

// The ICMP message that answers a packet without a route (RFC 792).
const (
	icmpUnreachable = 3
	icmpHeader      = 8
	icmpQuote       = 8 // bytes of the offender quoted after its IP header
	icmpTTL         = 8 // flannel pkg/backend/udp/proxy_amd64.c, send_net_unreachable
	maxIPHeader     = 60
	maxICMP         = minIP + icmpHeader + maxIPHeader + icmpQuote
)

// netUnreachable writes into buf, of maxICMP bytes, the answer that flanneld gives
// to a packet without a lease, and returns it. nil if none may be given: about
// ICMP, about later fragments (RFC 792), about packets not sent from one address
// to one other (RFC 1122 §3.2.2).
//
// It speaks in the name of the offender's destination. flanneld does in the name
// of the TUN's own address, which the kernel discards as a martian source
// (net/ipv4/fib_frontend.c, fib_validate_source), so that nobody ever hears it;
// the destination is an address whose way back is through the TUN for certain.
func netUnreachable(buf, offender []byte) []byte {
	h := ipHeaderLen(offender)
	src := netip.AddrFrom4([4]byte(offender[offSrc:]))
	dst := netip.AddrFrom4([4]byte(offender[offDst:]))
	if offender[offProto] == protoICMP || binary.BigEndian.Uint16(offender[offFrag:])&0x1fff != 0 ||
		src.IsUnspecified() || src.IsMulticast() || dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return nil
	}
	quote := offender[:min(h+icmpQuote, len(offender))]
	p := buf[:minIP+icmpHeader+len(quote)]
	clear(p[:minIP+icmpHeader])
	p[0] = 4<<4 | minIP/4
	binary.BigEndian.PutUint16(p[offLen:], uint16(len(p)))
	p[offTTL] = icmpTTL
	p[offProto] = protoICMP
	copy(p[offSrc:], offender[offDst:offDst+4])
	copy(p[offDst:], offender[offSrc:offSrc+4])
	setIPSum(p[:minIP])
	icmp := p[minIP:]
	icmp[0] = icmpUnreachable // code 0: net unreachable
	copy(icmp[icmpHeader:], quote)
	putSum(icmp[2:], ^fold(sum(0, icmp)))
	return p
}
