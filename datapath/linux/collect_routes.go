package linux

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

const (
	rtMsgLen     = 12 // struct rtmsg
	rtNextHopLen = 8  // struct rtnexthop
	rtaNHID      = 30 // RTA_NH_ID
)

// fibTypes are named by RTN_… (linux include/uapi/linux/rtnetlink.h).
var fibTypes = map[uint8]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
	unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// scopes are named as iproute2 does (etc/rt_scopes).
var scopes = map[uint8]string{
	unix.RT_SCOPE_UNIVERSE: "global", unix.RT_SCOPE_SITE: "site", unix.RT_SCOPE_LINK: "link",
	unix.RT_SCOPE_HOST: "host", unix.RT_SCOPE_NOWHERE: "nowhere",
}

func scopeName(s uint8) string {
	if n, ok := scopes[s]; ok {
		return n
	}
	return strconv.Itoa(int(s))
}

// protocols are named as iproute2 does (etc/rt_protos).
var protocols = map[int]string{
	1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird",
	13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 18: "keepalived", 42: "babel", 84: "ovn",
	186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp",
}

func protocolName(p int) string {
	if n, ok := protocols[p]; ok {
		return n
	}
	return strconv.Itoa(p)
}

func tableName(t int) string {
	switch t {
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return strconv.Itoa(t)
}

// routes reads the IPv4 routes of all tables in one dump.
func (c *collection) routes() error {
	header := make(raw, rtMsgLen)
	header[0] = unix.AF_INET
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETROUTE, header)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, m := range messages {
		attrs, err := body(m, rtMsgLen)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		if u32(m[8:])&unix.RTM_F_CLONED != 0 { // a cached exception, not a route
			continue
		}
		c.st.Routes = append(c.st.Routes, c.route(m[:rtMsgLen], attrs))
	}
	return nil
}

// route reads one route. What it has beyond the fields is kept for its text.
func (c *collection) route(header, attrs []byte) datapath.FIBRoute {
	flags := u32(header[8:])
	r := datapath.FIBRoute{
		Table: int(header[4]), TOS: int(header[3]), Protocol: datapath.RouteProtocol(header[5]),
		Type: fibTypes[header[7]], Scope: scopeName(header[6]),
		Dst:    netip.PrefixFrom(netip.IPv4Unspecified(), int(header[1])),
		Onlink: flags&unix.RTNH_F_ONLINK != 0, Dead: flags&unix.RTNH_F_DEAD != 0,
	}
	if r.Type == "" {
		r.Type = fmt.Sprintf("type-%d", header[7])
	}
	t := routeTail{flags: flags}
	var other []string
	for kind, v := range attributes(attrs) {
		switch kind {
		case unix.RTA_DST:
			r.Dst = netip.PrefixFrom(ipv4(v), int(header[1]))
		case unix.RTA_GATEWAY:
			r.Via = ipv4(v)
		case unix.RTA_OIF:
			r.Dev = c.device(int(u32(v)))
		case unix.RTA_PREFSRC:
			r.Src = ipv4(v)
		case unix.RTA_PRIORITY:
			r.Priority = int(u32(v))
		case unix.RTA_TABLE:
			r.Table = int(u32(v))
		case unix.RTA_METRICS:
			t.metrics, r.MTU = metrics(v)
		case unix.RTA_MULTIPATH:
			var odd string
			r.NextHops, t.hops, odd = c.nextHops(v)
			if odd != "" {
				other = append(other, odd)
			}
		case rtaNHID:
			t.object = fmt.Sprintf("nhid %d", u32(v))
		case unix.RTA_CACHEINFO, unix.RTA_PAD, unix.RTA_TTL_PROPAGATE:
		case unix.RTA_VIA: // a gateway of another family
			other = append(other, "via inet6")
		case unix.RTA_ENCAP_TYPE:
			other = append(other, fmt.Sprintf("encap type-%d", u16(v)))
		case unix.RTA_ENCAP:
		case unix.RTA_FLOW:
			t.realm = fmt.Sprintf("realm %d", u32(v))
		default:
			other = append(other, fmt.Sprintf("attribute-%d", kind))
		}
	}
	r.Other = strings.Join(other, " ")
	r.Text = routeText(r, t)
	return r
}

// routeTail is what only a route's text shows.
type routeTail struct {
	flags   uint32
	object  string // nexthop object
	realm   string
	metrics string
	hops    string
}

// hopFlags words RTNH_F_… (iproute2 ip/iproute.c, print_rt_flags).
func hopFlags(flags uint32) []string {
	var out []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.RTNH_F_DEAD, "dead"}, {unix.RTNH_F_ONLINK, "onlink"}, {unix.RTNH_F_PERVASIVE, "pervasive"},
		{unix.RTNH_F_OFFLOAD, "offload"}, {unix.RTNH_F_LINKDOWN, "linkdown"}, {unix.RTNH_F_UNRESOLVED, "unresolved"},
	} {
		if flags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	return out
}

// routeText is the route as `ip route show table all` prints it (iproute2
// ip/iproute.c, print_route), the legs of a multipath route on the same line.
func routeText(r datapath.FIBRoute, t routeTail) string {
	var s []string
	add := func(cond bool, words ...string) {
		if cond {
			s = append(s, words...)
		}
	}
	add(r.Type != "unicast", r.Type)
	if r.Dst.Bits() == 0 {
		add(true, "default")
	} else {
		add(true, prefixText(r.Dst, ""))
	}
	add(r.TOS != 0, "tos", fmt.Sprintf("0x%02x", r.TOS))
	add(t.object != "", t.object)
	add(r.Other != "", r.Other)
	add(r.Via.IsValid(), "via", r.Via.String())
	add(r.Dev != "", "dev", r.Dev)
	add(r.Table != unix.RT_TABLE_MAIN, "table", tableName(r.Table))
	add(r.Protocol != datapath.ProtoBoot, "proto", protocolName(int(r.Protocol)))
	add(r.Scope != "global", "scope", r.Scope)
	add(r.Src.IsValid(), "src", r.Src.String())
	add(r.Priority != 0, "metric", strconv.Itoa(r.Priority))
	add(true, hopFlags(t.flags)...)
	add(t.realm != "", t.realm)
	add(t.metrics != "", t.metrics)
	add(t.hops != "", t.hops)
	return strings.Join(s, " ")
}

// metricNames are RTAX_… from RTAX_MTU on, as iproute2 names them.
var metricNames = map[uint16]string{
	unix.RTAX_MTU: "mtu", unix.RTAX_WINDOW: "window", unix.RTAX_RTT: "rtt", unix.RTAX_RTTVAR: "rttvar",
	unix.RTAX_SSTHRESH: "ssthresh", unix.RTAX_CWND: "cwnd", unix.RTAX_ADVMSS: "advmss", unix.RTAX_REORDERING: "reordering",
	unix.RTAX_HOPLIMIT: "hoplimit", unix.RTAX_INITCWND: "initcwnd", unix.RTAX_FEATURES: "features",
	unix.RTAX_RTO_MIN: "rto_min", unix.RTAX_INITRWND: "initrwnd", unix.RTAX_QUICKACK: "quickack",
}

func metrics(v []byte) (words string, mtu int) {
	var lock uint32
	var s []string
	for kind, x := range attributes(v) {
		name, ok := metricNames[kind]
		switch {
		case kind == unix.RTAX_LOCK:
			lock = u32(x)
			continue
		case kind == unix.RTAX_MTU:
			mtu = int(u32(x))
		case !ok:
			continue
		}
		if lock&(1<<kind) != 0 {
			name += " lock"
		}
		s = append(s, fmt.Sprintf("%s %d", name, u32(x)))
	}
	return strings.Join(s, " "), mtu
}

// nextHops reads the legs of a multipath route.
func (c *collection) nextHops(b []byte) (legs []datapath.NextHop, words, other string) {
	var s []string
	for len(b) >= rtNextHopLen {
		size := int(u16(b))
		if size < rtNextHopLen || size > len(b) {
			break
		}
		flags := uint32(b[2])
		n := datapath.NextHop{
			Dev: c.device(int(u32(b[4:]))), Weight: int(b[3]) + 1,
			Onlink: flags&unix.RTNH_F_ONLINK != 0, Dead: flags&unix.RTNH_F_DEAD != 0,
		}
		for kind, v := range attributes(b[rtNextHopLen:size]) {
			switch kind {
			case unix.RTA_GATEWAY:
				n.Via = ipv4(v)
			case unix.RTA_FLOW:
			default:
				other = fmt.Sprintf("nexthop attribute-%d", kind)
			}
		}
		legs = append(legs, n)
		s = append(s, "nexthop")
		if n.Via.IsValid() {
			s = append(s, "via", n.Via.String())
		}
		s = append(s, "dev", n.Dev, "weight", strconv.Itoa(n.Weight))
		s = append(s, hopFlags(flags)...)
		b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return legs, strings.Join(s, " "), other
}
