package traceview

import (
	"fmt"
	"strconv"

	"slipway/datapath"
)

// change is one header field that a step changed.
type change struct {
	Layer  string `json:"layer"` // "outer" | "ip" | "skb", or the protocol
	Field  string `json:"field"`
	Before string `json:"before"` // empty: was not there
	After  string `json:"after"`  // empty: is gone
}

// changes lists what a step did to the headers, outer ones first.
func changes(before *datapath.Packet, after datapath.Packet) []change {
	if before == nil {
		return nil
	}
	var out []change
	add := func(layer, field, b, a string) {
		if b != a {
			out = append(out, change{layer, field, b, a})
		}
	}
	b, a := outerFields(before.Outer), outerFields(after.Outer)
	for i := range a {
		add("outer", a[i][0], b[i][1], a[i][1])
	}
	add("ip", "source", addr(before.Src), addr(after.Src))
	add("ip", "destination", addr(before.Dst), addr(after.Dst))
	add("ip", "ttl", number(before.TTL), number(after.TTL))
	add("ip", "length", number(before.Length), number(after.Length))
	add("ip", "protocol", before.Proto, after.Proto)
	add(after.Proto, "source port", port(before.SPort), port(after.SPort))
	add(after.Proto, "destination port", port(before.DPort), port(after.DPort))
	add(after.Proto, "flags", before.Flags, after.Flags)
	add("skb", "mark", hex(before.Mark), hex(after.Mark))
	return out
}

// outerFields are names and values of the carrying packet; values are empty
// where there is none.
func outerFields(o *datapath.Outer) [][2]string {
	if o == nil {
		o = &datapath.Outer{}
	}
	vni := ""
	if o.VNI != nil {
		vni = number(*o.VNI)
	}
	return [][2]string{
		{"tunnel", o.Type}, {"source", addr(o.Src)}, {"destination", addr(o.Dst)}, {"ttl", zero(number(o.TTL))},
		{"source port", port(o.SPort)}, {"destination port", port(o.DPort)}, {"vni", vni},
	}
}

func addr(a interface {
	IsValid() bool
	String() string
}) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func number[T uint8 | uint32 | int](n T) string { return fmt.Sprint(n) }

func zero(s string) string {
	if s == "0" {
		return ""
	}
	return s
}

func port(p uint16) string {
	if p == 0 {
		return ""
	}
	return strconv.Itoa(int(p))
}

func hex(m uint32) string {
	if m == 0 {
		return ""
	}
	return fmt.Sprintf("0x%x", m)
}

// sources and destinations are what NAT changes: an address with its port.
func source(p datapath.Packet) string      { return hostPort(addr(p.Src), p.SPort) }
func destination(p datapath.Packet) string { return hostPort(addr(p.Dst), p.DPort) }

func hostPort(host string, p uint16) string {
	switch {
	case host == "":
		return "unknown address"
	case p == 0:
		return host
	}
	return host + ":" + port(p)
}

// packetLine is "tcp 10.244.1.2:40000 → 10.96.0.10:8080 SYN, ttl 64, 60 bytes".
func packetLine(p datapath.Packet) string {
	s := fmt.Sprintf("%s %s → %s", orUnknown(p.Proto), source(p), destination(p))
	if p.Flags != "" {
		s += " " + p.Flags
	}
	if p.ICMP != nil {
		s += " " + icmpName(p.ICMP)
	}
	if p.TTL != 0 {
		s += fmt.Sprintf(", ttl %d", p.TTL)
	}
	if p.Length != 0 {
		s += fmt.Sprintf(", %d bytes", p.Length)
	}
	return s
}

// icmpName names the ICMP types that traces meet (RFC 792).
func icmpName(m *datapath.ICMPInfo) string {
	switch m.Type {
	case 0:
		return "echo reply"
	case 3:
		return unreachable(m)
	case 8:
		return "echo request"
	case 11:
		return "time exceeded"
	}
	return fmt.Sprintf("type %d code %d", m.Type, m.Code)
}

// unreachable names the codes of "destination unreachable" (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
func unreachable(m *datapath.ICMPInfo) string {
	switch m.Code {
	case 0:
		return "network unreachable"
	case 1:
		return "host unreachable"
	case 2:
		return "protocol unreachable"
	case 3:
		return "port unreachable"
	case 4:
		return fmt.Sprintf("fragmentation needed (mtu %d)", m.MTU)
	case 9, 10, 13:
		return "administratively prohibited"
	}
	return fmt.Sprintf("unreachable, code %d", m.Code)
}

// outerLine is "vxlan vni 1, 192.168.233.30 → 192.168.233.31 udp 8472".
func outerLine(o *datapath.Outer) string {
	if o == nil {
		return "unknown carrier"
	}
	s := orUnknown(o.Type)
	if o.VNI != nil {
		s += fmt.Sprintf(" vni %d", *o.VNI)
	}
	s += fmt.Sprintf(", %s → %s", hostPort(addr(o.Src), 0), hostPort(addr(o.Dst), 0))
	if o.DPort != 0 {
		s += fmt.Sprintf(" udp %d", o.DPort)
	}
	return s
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
