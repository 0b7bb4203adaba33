package udptun

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to acc, a ones' complement sum of 16-bit words in the machine's own
// byte order, which yields the right checksum bytes in any order (RFC 1071 §2 B).
// All but the last piece of a sum over several must be of even length.
func sum(acc uint64, b []byte) uint64 {
	var c uint64
	for len(b) >= 64 {
		p := (*[64]byte)(b)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[0:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[8:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[16:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[24:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[32:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[40:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[48:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(p[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b) // padding with zeros changes no sum
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(tail[:]), c)
	}
	acc, c = bits.Add64(acc, 0, c)
	return acc + c
}

// fold reduces a sum to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc&0xffffffff + acc>>32
	acc = acc&0xffffffff + acc>>32
	acc = acc&0xffff + acc>>16
	acc = acc&0xffff + acc>>16
	return uint16(acc)
}

// pseudo is the sum of the pseudo-header of an IPv4 packet's transport part of n
// bytes (RFC 9293 §3.1).
func pseudo(ip []byte, n int) uint64 {
	tail := [4]byte{0, ip[offProto], byte(n >> 8), byte(n)}
	return sum(sum(0, ip[offSrc:offSrc+8]), tail[:])
}

// putSum stores a folded sum, which is in the machine's byte order already.
func putSum(b []byte, v uint16) { binary.NativeEndian.PutUint16(b, v) }

// putUDPSum stores a UDP checksum: zero would mean none (RFC 768).
func putUDPSum(b []byte, v uint16) {
	if v == 0 {
		v = 0xffff
	}
	putSum(b, v)
}
