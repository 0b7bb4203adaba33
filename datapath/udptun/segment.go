package udptun

import "encoding/binary"

// Offsets in a TCP header (RFC 9293 §3.1), its flags, and a UDP header (RFC 768).
const (
	offSeq      = 4
	offAck      = 8
	offDataOffs = 12
	offFlags    = 13
	offTCPSum   = 16
	minTCP      = 20

	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpECE = 0x40
	tcpCWR = 0x80

	offUDPLen = 4
	offUDPSum = 6
	udpHeader = 8
)

// maxHeaders is the most that the headers of one segment need: both at their
// longest, with their options.
const maxHeaders = maxIPHeader + 60

// superPacket is a TCP or UDP packet of more than one segment's payload, as the
// kernel hands it over under TSO or USO, in the course of being split.
type superPacket struct {
	headers []byte // IP and transport header of the whole
	payload []byte // what is not yet split off
	ipLen   int    // of the IP header
	mss     int    // payload bytes of each segment but the last
	tcp     bool
	index   int // of the next segment
	id      uint16
	seq     uint32
}

// newSuperPacket prepares p, which checkIPv4 has passed, for splitting. False if
// v asks for something that this package did not offer the kernel, or lies.
func newSuperPacket(v vnetHeader, p []byte) (superPacket, bool) {
	s := superPacket{ipLen: ipHeaderLen(p), mss: int(v.gsoSize), tcp: v.gso&^gsoECN == gsoTCP4}
	n := s.ipLen
	switch {
	case s.tcp && p[offProto] == protoTCP && len(p) >= n+minTCP:
		n += int(p[n+offDataOffs]>>4) * 4
		if n < s.ipLen+minTCP || n > len(p) {
			return superPacket{}, false
		}
		s.seq = binary.BigEndian.Uint32(p[s.ipLen+offSeq:])
	case v.gso == gsoUDP && p[offProto] == protoUDP && len(p) >= n+udpHeader:
		n += udpHeader
	default:
		return superPacket{}, false
	}
	if s.mss == 0 || binary.BigEndian.Uint16(p[offFrag:])&fragMask != 0 {
		return superPacket{}, false
	}
	s.headers, s.payload = p[:n], p[n:]
	s.id = binary.BigEndian.Uint16(p[offID:])
	return s, true
}

// more says whether next has another segment. A super-packet without payload is
// still one segment.
func (s *superPacket) more() bool { return s.index == 0 || len(s.payload) > 0 }

// next splits off a segment: it writes its headers, checksums complete, to
// storage of maxHeaders bytes, and leaves the payload where it is. It does what
// the kernel's inet_gso_segment, tcp_gso_segment and __udp_gso_segment do: the IP
// id counts up, FIN and PSH go to the last segment, CWR to the first.
func (s *superPacket) next(storage []byte) (headers, payload []byte) {
	payload = s.payload[:min(s.mss, len(s.payload))]
	s.payload = s.payload[len(payload):]
	h := storage[:len(s.headers)]
	copy(h, s.headers)
	binary.BigEndian.PutUint16(h[offLen:], uint16(len(h)+len(payload)))
	binary.BigEndian.PutUint16(h[offID:], s.id+uint16(s.index))
	setIPSum(h[:s.ipLen])

	l4 := h[s.ipLen:]
	n := len(l4) + len(payload)
	if s.tcp {
		binary.BigEndian.PutUint32(l4[offSeq:], s.seq+uint32(s.index*s.mss))
		if len(s.payload) > 0 {
			l4[offFlags] &^= tcpFIN | tcpPSH
		}
		if s.index > 0 {
			l4[offFlags] &^= tcpCWR
		}
		l4[offTCPSum], l4[offTCPSum+1] = 0, 0
		putSum(l4[offTCPSum:], ^fold(sum(sum(pseudo(h, n), l4), payload)))
	} else {
		binary.BigEndian.PutUint16(l4[offUDPLen:], uint16(n))
		l4[offUDPSum], l4[offUDPSum+1] = 0, 0
		putUDPSum(l4[offUDPSum:], ^fold(sum(sum(pseudo(h, n), l4), payload)))
	}
	s.index++
	return h, payload
}
