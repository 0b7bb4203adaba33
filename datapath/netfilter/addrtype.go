package netfilter

import (
	"net/netip"

	"slipway/datapath"
)

// AddrTypes answers [Query.AddrType] from a namespace's routes: what the local
// table says, and UNICAST for everything else (linux net/ipv4/fib_frontend.c,
// __inet_dev_addr_type).
func AddrTypes(routes []datapath.FIBRoute) func(a netip.Addr, dev string) (string, bool) {
	const localTable = 255 // include/uapi/linux/rtnetlink.h, RT_TABLE_LOCAL
	names := map[string]string{"local": "LOCAL", "broadcast": "BROADCAST", "multicast": "MULTICAST", "unicast": "UNICAST", "blackhole": "BLACKHOLE", "unreachable": "UNREACHABLE", "prohibit": "PROHIBIT", "throw": "THROW", "anycast": "ANYCAST", "nat": "NAT"}
	var local []datapath.FIBRoute
	for _, r := range routes {
		if r.Table == localTable && !r.Dead && r.Dst.IsValid() {
			local = append(local, r)
		}
	}
	zero, limited := netip.MustParsePrefix("0.0.0.0/8"), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return func(a netip.Addr, dev string) (string, bool) {
		switch {
		case !a.Is4():
			return "", false
		case zero.Contains(a), a == limited:
			return "BROADCAST", true
		case a.IsMulticast():
			return "MULTICAST", true
		}
		var best *datapath.FIBRoute
		for i := range local {
			r := &local[i]
			if r.TOS == 0 && r.Dst.Contains(a) && (best == nil || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Priority < best.Priority) {
				best = r
			}
		}
		if best == nil || dev != "" && dev != best.Dev {
			return "UNICAST", true
		}
		name, ok := names[best.Type]
		return name, ok
	}
}
