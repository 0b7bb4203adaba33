package ruletrace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
)

// hooks are the names of netfilter's hooks, in the kernel's order
// (enum nf_inet_hooks, include/uapi/linux/netfilter.h).
var hooks = [...]string{"prerouting", "input", "forward", "output", "postrouting"}

// decodeLog reads a packet that was logged; ok is false if it is no trace.
func decodeLog(b []byte) (h rawHit, ok bool, err error) {
	attrs, err := attributes(b)
	if err != nil {
		return h, false, fmt.Errorf("logged packet: %w", err)
	}
	prefix, _, _ := bytes.Cut(attrs[logPrefix], []byte{0})
	if h.Table, h.Chain, h.Kind, h.Number, ok = parsePrefix(string(prefix)); !ok {
		return h, false, nil
	}
	if header := attrs[logPacketHeader]; len(header) >= 3 && int(header[2]) < len(hooks) {
		h.Hook = hooks[header[2]]
	}
	h.in, h.out, h.Mark = number(attrs[logIn]), number(attrs[logOut]), number(attrs[logMark])
	h.Data = bytes.Clone(attrs[logPayload])
	return h, true, nil
}

// parsePrefix reads what the kernel writes before a traced packet,
// "TRACE: filter:FORWARD:rule:3 " (trace_packet, net/ipv4/netfilter/ip_tables.c).
// A chain's name may hold colons, the others do not.
func parsePrefix(s string) (table, chain, kind string, number int, ok bool) {
	s, ok = strings.CutPrefix(s, "TRACE: ")
	if !ok {
		return
	}
	s = strings.TrimSuffix(s, " ")
	parts := strings.Split(s, ":")
	n := len(parts)
	if n < 4 {
		return "", "", "", 0, false
	}
	number, err := strconv.Atoi(parts[n-1])
	return parts[0], strings.Join(parts[1:n-2], ":"), parts[n-2], number, err == nil
}

// attributes reads those behind the header that netfilter's messages have.
func attributes(b []byte) (map[uint16][]byte, error) {
	if len(b) < nl.SizeofNfgenmsg {
		return nil, fmt.Errorf("%d bytes are too few for a message of netfilter", len(b))
	}
	return nestedAttributes(b[nl.SizeofNfgenmsg:])
}

func nestedAttributes(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	out := make(map[uint16][]byte, len(list))
	for _, a := range list {
		out[a.Attr.Type&nl.NLA_TYPE_MASK] = a.Value
	}
	return out, nil
}

// number reads a number in network order; zero if there is none.
func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
