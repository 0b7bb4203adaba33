package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// header is the part of a rule that the kernel looks at first (linux
// net/ipv4/netfilter/ip_tables.c, ip_packet_match). The zero value matches all.
type header struct {
	src, dst  prefix
	in, out   device
	protoName string
	proto     uint8
	anyProto  bool // "all": as if there were no -p
	protoNot  bool
	// fragment: -f, only later fragments; which no packet here is.
	fragment, fragmentNot bool
}

// prefix is an address with a mask, which may have holes.
type prefix struct {
	addr, mask uint32
	not        bool
}

func (p prefix) match(a uint32) bool { return (a&p.mask == p.addr) != p.not }

// device is a device name, or with "+" its beginning.
type device struct {
	name string
	wild bool
	not  bool
	set  bool
}

func (d device) match(name string) bool {
	if !d.set {
		return true
	}
	ok := name == d.name || d.wild && strings.HasPrefix(name, d.name)
	return ok != d.not
}

func newDevice(name string, not bool) device {
	d := device{name: name, not: not, set: true}
	d.name, d.wild = strings.CutSuffix(name, "+")
	return d
}

func (h *header) match(v *view, in, out string) bool {
	switch {
	case !h.src.match(v.src), !h.dst.match(v.dst):
		return false
	case h.protoName != "" && !h.anyProto && (h.proto == v.proto) == h.protoNot:
		return false
	case h.fragment && !h.fragmentNot:
		return false
	}
	return h.in.match(in) && h.out.match(out)
}

// set takes one option in.
func (h *header) set(name string, not bool, value string) (err error) {
	switch name {
	case "-s":
		h.src, err = parsePrefix(value)
		h.src.not = not
	case "-d":
		h.dst, err = parsePrefix(value)
		h.dst.not = not
	case "-i":
		h.in = newDevice(value, not)
	case "-o":
		h.out = newDevice(value, not)
	case "-p":
		h.protoName, h.protoNot, h.anyProto = value, not, value == "all" || value == "0"
		var ok bool
		if h.proto, ok = protocolNumber(value); !ok {
			return fmt.Errorf("protocol %q is not known", value)
		}
	case "-f":
		h.fragment, h.fragmentNot = true, not
	default:
		return fmt.Errorf("header option %s is not known", name)
	}
	return err
}

// leadingHeader reads the header options that stand right behind "-A CHAIN",
// where iptables-save puts them, as far as they are understood. It is quick: of
// a long chain of services nearly all rules fail here.
func leadingHeader(raw string) header {
	var h header
	rest := strings.TrimPrefix(raw, "-A ")
	_, rest, _ = strings.Cut(rest, " ")
	for {
		not := strings.HasPrefix(rest, "! ")
		if not {
			rest = rest[2:]
		}
		name, after, ok := strings.Cut(rest, " ")
		switch name {
		case "-s", "-d", "-i", "-o", "-p":
		default:
			return h
		}
		value, next, _ := strings.Cut(after, " ")
		was := h
		if !ok || value == "" || strings.Contains(value, `"`) || h.set(name, not, value) != nil {
			return was
		}
		rest = next
	}
}

// parsePrefix reads 10.0.0.0/8, 10.0.0.1 and 10.0.0.1/255.0.0.255.
func parsePrefix(s string) (prefix, error) {
	addr, mask, masked := strings.Cut(s, "/")
	a, ok := parseIPv4(addr)
	m, err := uint32(1<<32-1), error(nil)
	if masked {
		if m, err = parseMask(mask); err != nil {
			ok = false
		}
	}
	if !ok {
		return prefix{}, fmt.Errorf("not an IPv4 prefix: %q", s)
	}
	return prefix{addr: a & m, mask: m}, nil
}

func parseMask(s string) (uint32, error) {
	if strings.Contains(s, ".") {
		m, ok := parseIPv4(s)
		if !ok {
			return 0, fmt.Errorf("not a mask: %q", s)
		}
		return m, nil
	}
	bits, err := strconv.ParseUint(s, 10, 8)
	if err != nil || bits > 32 {
		return 0, fmt.Errorf("not a mask: %q", s)
	}
	return uint32(uint64(0xffffffff) << (32 - bits)), nil
}

func parseIPv4(s string) (uint32, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return 0, false
	}
	return number(a), true
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// protocols are the names that iptables knows without asking anybody
// (iptables libxtables/xtables.c, xtables_chain_protos), and those that
// /etc/protocols has for tunnels.
var protocols = map[string]uint8{
	"all": 0, "icmp": 1, "igmp": 2, "ipencap": 4, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51,
	"ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "vrrp": 112, "sctp": 132, "udplite": 136,
}

func protocolNumber(s string) (uint8, bool) {
	if n, ok := protocols[s]; ok {
		return n, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}
