package udptun

import (
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// packetSpec describes a packet that testPacket has gopacket build, so that its
// checksums owe nothing to this package.
type packetSpec struct {
	proto      byte
	payload    int // bytes
	id         uint16
	frag       layers.IPv4Flag
	fragOffset uint16
	tos, ttl   uint8
	ipOptions  bool
	seq        uint32
	tcp        layers.TCP // flags, window and options
	fill       byte
}

func testPacket(t testing.TB, s packetSpec) []byte {
	t.Helper()
	if s.ttl == 0 {
		s.ttl = 64
	}
	ip := &layers.IPv4{
		Version: 4, TTL: s.ttl, TOS: s.tos, Id: s.id, Flags: s.frag, FragOffset: s.fragOffset, Protocol: layers.IPProtocol(s.proto),
		SrcIP: net.IPv4(10, 244, 1, 5), DstIP: net.IPv4(10, 244, 2, 6),
	}
	if s.ipOptions {
		ip.Options = []layers.IPv4Option{{OptionType: 1, OptionLength: 1}, {OptionType: 1, OptionLength: 1}, {OptionType: 1, OptionLength: 1}, {OptionType: 0, OptionLength: 1}}
	}
	payload := make([]byte, s.payload)
	for i := range payload {
		payload[i] = s.fill + byte(i*7)
	}
	body := []gopacket.SerializableLayer{ip}
	switch s.proto {
	case protoTCP:
		tcp := s.tcp
		tcp.SrcPort, tcp.DstPort, tcp.Seq, tcp.Ack = 4321, 80, s.seq, 99
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		body = append(body, &tcp)
	case protoUDP:
		udp := &layers.UDP{SrcPort: 4321, DstPort: 53}
		if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		body = append(body, udp)
	}
	buf := gopacket.NewSerializeBuffer()
	body = append(body, gopacket.Payload(payload))
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, body...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// slowSum is RFC 1071's sum as its text has it, to check the fast one against.
func slowSum(parts ...[]byte) uint16 {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	var acc uint32
	for i := 0; i < len(all); i += 2 {
		acc += uint32(all[i])<<8 | uint32(all[i+1])
		acc = acc&0xffff + acc>>16
	}
	return uint16(acc)
}

// wellFormed checks a whole packet as its receiver would: lengths and checksums.
func wellFormed(t testing.TB, p []byte) {
	t.Helper()
	h := int(p[0]&15) * 4
	if total := int(p[2])<<8 | int(p[3]); total != len(p) {
		t.Errorf("total length %d in a packet of %d bytes", total, len(p))
	}
	if slowSum(p[:h]) != 0xffff {
		t.Errorf("bad IP checksum in % x", p[:h])
	}
	n := len(p) - h
	if p[9] == protoUDP {
		if got := int(p[h+4])<<8 | int(p[h+5]); got != n {
			t.Errorf("UDP length %d of %d bytes", got, n)
		}
		if p[h+6] == 0 && p[h+7] == 0 {
			t.Error("no UDP checksum")
		}
	}
	if slowSum(p[12:20], []byte{0, p[9], byte(n >> 8), byte(n)}, p[h:]) != 0xffff {
		t.Errorf("bad transport checksum in a packet of %d bytes", len(p))
	}
}

// gather collects the pieces of all segments of a super-packet.
func gather(t testing.TB, v vnetHeader, p []byte) [][]byte {
	t.Helper()
	s, ok := newSuperPacket(v, p)
	if !ok {
		t.Fatalf("not a super-packet: %+v", v)
	}
	var out [][]byte
	for s.more() {
		h, payload := s.next(make([]byte, maxHeaders))
		out = append(out, append(h[:len(h):len(h)], payload...))
	}
	return out
}

// device is a TUN in memory: what a run of packets becomes on it.
type device struct {
	headers []vnetHeader
	packets [][]byte
}

func coalesceAll(packets [][]byte) (d device) {
	var r packetRun
	flush := func() {
		if len(r.parts) == 0 {
			return
		}
		d.headers = append(d.headers, r.finish())
		var whole []byte
		for _, part := range r.parts {
			whole = append(whole, part...)
		}
		d.packets = append(d.packets, whole)
		r.parts = r.parts[:0]
	}
	for _, p := range packets {
		p = append([]byte(nil), p...)
		if len(r.parts) == 0 || !r.add(p, true) {
			flush()
			r.start(p, true)
		}
	}
	flush()
	return d
}

// segmentAll splits what is on the device again.
func (d device) segmentAll(t testing.TB) (out [][]byte) {
	t.Helper()
	for i, p := range d.packets {
		if d.headers[i].gso == gsoNone {
			out = append(out, p)
		} else {
			out = append(out, gather(t, d.headers[i], p)...)
		}
	}
	return out
}
