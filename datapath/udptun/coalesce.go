package udptun

import (
	"bytes"
	"encoding/binary"
)

const (
	maxIPPacket = 65535
	// maxRun bounds the segments of one super-packet: UDP_MAX_SEGMENTS of older
	// kernels (include/linux/udp.h), which the TUN holds UDP super-packets to.
	maxRun = 64
)

// packetRun collects consecutive packets that the kernel can take as one super-packet.
// It merges only what splitting gives back bit for bit (but for the IP id of
// unfragmentable packets, which means nothing, RFC 6864 §4.1), by the rules of the
// kernel's own GRO (inet_gro_receive, tcp_gro_receive). Checksums are verified
// first, since the receiver will take those of a super-packet as good.
type packetRun struct {
	parts  [][]byte // the first packet whole, then payloads
	total  int      // bytes of the packet that the parts make
	bytes  int      // of the packets themselves
	ipLen  int
	hdrLen int // 0: the packet can head no super-packet
	mss    int
	idStep int // of the IP ids; -1: not yet known
	closed bool
}

// start begins a run with p. udp says whether the device takes UDP super-packets.
func (r *packetRun) start(p []byte, udp bool) {
	*r = packetRun{parts: append(r.parts[:0], p), total: len(p), bytes: len(p), ipLen: ipHeaderLen(p), idStep: -1}
	r.hdrLen = mergeableHeaders(p, udp)
	r.mss = len(p) - r.hdrLen
	r.closed = r.hdrLen == 0
	if !r.closed && p[offProto] == protoTCP {
		r.closed = p[r.ipLen+offFlags]&(tcpFIN|tcpPSH) != 0
	}
}

// mergeableHeaders is the length of all headers of a packet that may stand in a
// super-packet; 0 if it may not: options, fragments, handshakes, nothing inside.
func mergeableHeaders(p []byte, udp bool) int {
	if ipHeaderLen(p) != minIP || binary.BigEndian.Uint16(p[offFrag:])&fragMask != 0 {
		return 0
	}
	n := 0
	switch l4 := p[minIP:]; {
	case p[offProto] == protoTCP && len(l4) >= minTCP:
		n = minIP + int(l4[offDataOffs]>>4)*4
		flags := l4[offFlags] &^ (tcpFIN | tcpPSH | tcpECE | tcpCWR)
		if n < minIP+minTCP || flags != tcpACK {
			return 0
		}
	case udp && p[offProto] == protoUDP && len(l4) > udpHeader:
		n = minIP + udpHeader
		unsummed := l4[offUDPSum] == 0 && l4[offUDPSum+1] == 0
		if unsummed || int(binary.BigEndian.Uint16(l4[offUDPLen:])) != len(l4) {
			return 0
		}
	}
	if n >= len(p) {
		return 0
	}
	return n
}

// add takes p as the run's next segment; false if it has to stand elsewhere.
func (r *packetRun) add(p []byte, udp bool) bool {
	if r.closed || len(r.parts) == maxRun || len(p) <= r.hdrLen || len(p)-r.hdrLen > r.mss || r.total+len(p)-r.hdrLen > maxIPPacket {
		return false
	}
	first := r.parts[0]
	if !r.sameFlow(first, p) || mergeableHeaders(p, udp) != r.hdrLen {
		return false
	}
	step, ok := r.nextID(first, p)
	if !ok {
		return false
	}
	if len(r.parts) == 1 && !checksumsValid(first) {
		r.closed = true
		return false
	}
	if !checksumsValid(p) {
		return false
	}
	r.idStep = step
	r.parts = append(r.parts, p[r.hdrLen:])
	r.total += len(p) - r.hdrLen
	r.bytes += len(p)
	r.closed = len(p)-r.hdrLen < r.mss
	if p[offProto] == protoTCP {
		last := p[r.ipLen+offFlags] & (tcpFIN | tcpPSH)
		first[r.ipLen+offFlags] |= last // splitting hands them to the last segment
		r.closed = r.closed || last != 0
	}
	return true
}

// sameFlow compares all header fields that the segments of one super-packet share.
func (r *packetRun) sameFlow(first, p []byte) bool {
	if p[0] != first[0] || p[offTOS] != first[offTOS] || !bytes.Equal(p[offFrag:offCheck], first[offFrag:offCheck]) ||
		!bytes.Equal(p[offSrc:minIP+4], first[offSrc:minIP+4]) { // both addresses and both ports
		return false
	}
	if first[offProto] == protoUDP {
		return true
	}
	a, b := first[minIP:], p[minIP:]
	const mayDiffer = tcpFIN | tcpPSH | tcpCWR
	return b[offFlags]&tcpCWR == 0 && a[offFlags]&^mayDiffer == b[offFlags]&^mayDiffer &&
		binary.BigEndian.Uint32(b[offSeq:]) == binary.BigEndian.Uint32(a[offSeq:])+uint32(r.total-r.hdrLen) &&
		bytes.Equal(a[offAck:offFlags], b[offAck:offFlags]) && // with the data offset and the reserved bits
		bytes.Equal(a[offFlags+1:offTCPSum], b[offFlags+1:offTCPSum]) &&
		bytes.Equal(first[minIP+offTCPSum+2:r.hdrLen], p[minIP+offTCPSum+2:r.hdrLen])
}

// nextID checks that the IP ids count up by one, or stay the same in packets that
// must not be fragmented.
func (r *packetRun) nextID(first, p []byte) (step int, ok bool) {
	diff := binary.BigEndian.Uint16(p[offID:]) - binary.BigEndian.Uint16(first[offID:])
	if diff == uint16(len(r.parts)) && r.idStep != 0 {
		return 1, true
	}
	unfragmentable := binary.BigEndian.Uint16(p[offFrag:])&dontFragment != 0
	return 0, diff == 0 && unfragmentable && r.idStep != 1
}

// checksumsValid verifies the IP header's and the transport checksum.
func checksumsValid(p []byte) bool {
	return fold(sum(0, p[:minIP])) == 0xffff && fold(sum(pseudo(p, len(p)-minIP), p[minIP:])) == 0xffff
}

// finish makes the parts one packet and returns what precedes it on the device.
func (r *packetRun) finish() vnetHeader {
	if len(r.parts) == 1 {
		return vnetHeader{}
	}
	p := r.parts[0]
	binary.BigEndian.PutUint16(p[offLen:], uint16(r.total))
	setIPSum(p[:r.ipLen])
	l4 := p[r.ipLen:]
	v := vnetHeader{
		flags: vnetNeedsCsum, gso: gsoTCP4, hdrLen: uint16(r.hdrLen), gsoSize: uint16(r.mss),
		checksumStart: uint16(r.ipLen), checksumOffs: offTCPSum,
	}
	if p[offProto] == protoUDP {
		v.gso, v.checksumOffs = gsoUDP, offUDPSum
		binary.BigEndian.PutUint16(l4[offUDPLen:], uint16(r.total-r.ipLen))
	} else if l4[offFlags]&tcpCWR != 0 {
		v.gso |= gsoECN
	}
	putSum(l4[v.checksumOffs:], fold(pseudo(p, r.total-r.ipLen)))
	return v
}
