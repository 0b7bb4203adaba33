package netfilter

import (
	"net/netip"

	"slipway/datapath"
)

// Routing tables (linux include/uapi/linux/rtnetlink.h, RT_TABLE_…).
const (
	localTable = 255
	mainTable  = 254
)

// AddrTypes answers [Query.AddrType] as linux net/ipv4/fib_frontend.c,
// __inet_dev_addr_type, does: what the local table says of an address, and
// UNICAST for what it does not hold. As long as a namespace has only the three
// policy rules that it was made with, the kernel keeps the main table in the
// same trie (fib_trie_table), where its longer prefixes win.
func AddrTypes(s *datapath.NetState) func(a netip.Addr, dev string) (rtn string, ok bool) {
	merged := defaultPolicy(s.Policy)
	var routes []datapath.FIBRoute
	for _, r := range s.Routes {
		if (r.Table == localTable || merged && r.Table == mainTable) && !r.Dead && r.TOS == 0 && r.Dst.IsValid() {
			routes = append(routes, r)
		}
	}
	return func(a netip.Addr, dev string) (string, bool) {
		switch {
		case !a.Is4():
			return "", false
		case a.IsUnspecified(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return "BROADCAST", true
		case a.IsMulticast():
			return "MULTICAST", true
		}
		best := lookup(routes, a)
		if best == nil || dev != "" && dev != firstDev(best) {
			return "UNICAST", true
		}
		if rtn, ok := routeTypes[best.Type]; ok {
			return rtn, true
		}
		return "UNICAST", true
	}
}

// routeTypes are the kinds of route that a lookup can end with, as iptables
// spells them. At the others, such as blackhole, it fails, which is UNICAST
// (net/ipv4/fib_trie.c, fib_table_lookup; net/ipv4/fib_semantics.c, fib_props).
var routeTypes = map[string]string{
	"local": "LOCAL", "broadcast": "BROADCAST", "anycast": "ANYCAST", "multicast": "MULTICAST",
}

// lookup is the longest prefix, of equal ones that of the local table, then the
// first by metric.
func lookup(routes []datapath.FIBRoute, a netip.Addr) *datapath.FIBRoute {
	var best *datapath.FIBRoute
	for i := range routes {
		r := &routes[i]
		if r.Dst.Contains(a) && (best == nil || before(r, best)) {
			best = r
		}
	}
	return best
}

func before(a, b *datapath.FIBRoute) bool {
	if a.Dst.Bits() != b.Dst.Bits() {
		return a.Dst.Bits() > b.Dst.Bits()
	}
	if a.Table != b.Table {
		return a.Table > b.Table
	}
	return a.Priority < b.Priority
}

func firstDev(r *datapath.FIBRoute) string {
	if len(r.NextHops) > 0 {
		return r.NextHops[0].Dev
	}
	return r.Dev
}

// defaultPolicy says that the rules are those of a new namespace: local, main, default.
func defaultPolicy(rules []datapath.PolicyRule) bool {
	for _, r := range rules {
		if r.Priority != 0 && r.Priority != 32766 && r.Priority != 32767 {
			return false
		}
	}
	return len(rules) <= 3
}
