package ipiptun

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// sum is RFC 1071's checksum; 0 for a header that contains its own.
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// packet is an IPv4 packet with a good header checksum.
func packet(tos byte, payload int) []byte {
	b := make([]byte, headerLen+payload)
	b[0], b[1], b[6], b[8], b[9] = 0x45, tos, flagDF, 33, 17
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(b[10:], sum(b[:headerLen]))
	return b
}

func wrap(inner []byte) []byte {
	b := append(make([]byte, headerLen), inner...)
	putOuter(b, 7, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"))
	return b
}

func TestInnerOfUndoesPutOuter(t *testing.T) {
	inner := packet(0, 100)
	outer := wrap(inner)
	padded := append(bytes.Clone(outer), 0, 0, 0)
	for _, b := range [][]byte{outer, padded} {
		got, ok := innerOf(b)
		if !ok || !bytes.Equal(got, inner) {
			t.Errorf("got %x, %v; want %x", got, ok, inner)
		}
	}
}

// RFC 6040, figure 4: the outer mark by the inner one.
func TestCongestionIsHandedOn(t *testing.T) {
	tests := []struct {
		inner byte
		want  byte
		ok    bool
	}{
		{0, 0, false}, // not ECN capable: lost
		{1, 3, true},
		{2, 3, true},
		{3, 3, true},
	}
	for _, tt := range tests {
		outer := wrap(packet(0xb8|tt.inner, 8))
		outer[1] |= ecnCE
		got, ok := innerOf(outer)
		if ok != tt.ok {
			t.Errorf("inner ECN %d: carried %v, want %v", tt.inner, ok, tt.ok)
			continue
		}
		if ok && (got[1] != 0xb8|tt.want || sum(got[:headerLen]) != 0) {
			t.Errorf("inner ECN %d: TOS %#x, checksum off by %#x", tt.inner, got[1], sum(got[:headerLen]))
		}
	}
}

func FuzzInnerOf(f *testing.F) {
	f.Add(wrap(packet(0, 40)))
	f.Add(wrap(packet(1, 0))[:30])
	f.Fuzz(func(t *testing.T, b []byte) {
		inner, ok := innerOf(bytes.Clone(b))
		if !ok {
			return
		}
		if total := int(binary.BigEndian.Uint16(inner[2:])); total != len(inner) || inner[0]>>4 != 4 {
			t.Fatalf("accepted %x of %x", inner, b)
		}
		if len(inner)+headerLen > maxPacket {
			return
		}
		again, ok := innerOf(wrap(inner))
		if !ok || !bytes.Equal(again, inner) {
			t.Fatalf("%x came back as %x, %v", inner, again, ok)
		}
	})
}
