package linux

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"strings"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/internal/nl"
)

// dump asks the namespace of the calling thread for all objects of a kind and
// returns the messages' contents. header is what the kind's messages begin with.
func dump(family int, kind int, header vnl.NetlinkRequestData, more ...vnl.NetlinkRequestData) ([][]byte, error) {
	return nl.Dump(func() ([][]byte, error) {
		req := vnl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
		req.AddData(header)
		for _, m := range more {
			req.AddData(m)
		}
		return req.Execute(family, 0)
	})
}

// raw is a header as its bytes.
type raw []byte

// Len and Serialize make it part of a request.
func (r raw) Len() int          { return len(r) }
func (r raw) Serialize() []byte { return r }

// attributes walks netlink attributes (linux include/uapi/linux/netlink.h,
// struct nlattr), without the flags in their types. A truncated one ends it.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

// body is a message without its header.
func body(m []byte, header int) ([]byte, error) {
	if len(m) < header {
		return nil, fmt.Errorf("message of %d bytes has no header of %d", len(m), header)
	}
	return m[header:], nil
}

// The values of attributes; those of another size are zero.

func u8(b []byte) uint8 {
	if len(b) < 1 {
		return 0
	}
	return b[0]
}

func u16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(b)
}

func be16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func ipv4(b []byte) netip.Addr {
	if len(b) != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(b))
}

func mac(b []byte) string { return net.HardwareAddr(b).String() }
