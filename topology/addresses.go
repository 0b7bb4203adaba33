package topology

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
)

// offset is the address n places after the first one of the prefix.
func offset(p netip.Prefix, n uint32) netip.Addr {
	a := p.Masked().Addr().As4()
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(a[:])+n)
	return netip.AddrFrom4(b)
}

// index is the place of an address in the prefix: the inverse of offset.
func index(p netip.Prefix, a netip.Addr) uint32 {
	x, y := p.Masked().Addr().As4(), a.As4()
	return binary.BigEndian.Uint32(y[:]) - binary.BigEndian.Uint32(x[:])
}

// size is the number of addresses in an IPv4 prefix.
func size(p netip.Prefix) uint64 { return 1 << (32 - p.Bits()) }

// subPrefix is the n-th prefix of the given length inside p.
func subPrefix(p netip.Prefix, bits int, n uint32) netip.Prefix {
	return netip.PrefixFrom(offset(p, n<<(32-bits)), bits)
}

// derivedMAC is a locally administered unicast address (IEEE 802 §8.2) that
// depends on nothing but the given words.
func derivedMAC(words ...string) string {
	h := fnv.New64a()
	for _, w := range words {
		_, _ = h.Write([]byte(w))
		_, _ = h.Write([]byte{0})
	}
	sum := h.Sum(nil)
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[3], sum[4], sum[5], sum[6], sum[7])
}

// nodeAddressFrom is the first host number that nodes without an address get;
// those before it are left to routers and to what people number by hand.
const nodeAddressFrom = 10

// underlayAddresses gives every node and every leg of a router its address:
// that of the file, else the previous one, else a free one. Keys are the node's
// name, or "router/segment".
func underlayAddresses(c *Cluster, prev map[string]string) (map[string]netip.Addr, map[string]string, error) {
	a := &underlayAllocator{
		segments: map[string]Segment{}, taken: map[netip.Addr]string{},
		out: map[string]netip.Addr{}, chosen: map[string]string{}, prev: prev,
	}
	for _, g := range c.Spec.Underlay.Segments {
		a.segments[g.Name] = g
	}
	if vip := c.Spec.ControlPlane.LoadBalancer.VIP; vip.IsValid() {
		a.taken[vip] = "the control plane's VIP"
	}
	for _, n := range c.Spec.Nodes {
		if n.Address.IsValid() {
			a.taken[n.Address] = n.Name
			a.out[n.Name] = n.Address
		}
	}
	// Previous choices go first, so that a newcomer cannot take them.
	for _, fresh := range []bool{false, true} {
		for _, r := range c.Spec.Underlay.Routers {
			for _, g := range r.Segments {
				if err := a.give(r.Name+"/"+g, g, true, fresh); err != nil {
					return nil, nil, err
				}
			}
		}
		for _, n := range c.Spec.Nodes {
			if err := a.give(n.Name, n.Segment, false, fresh); err != nil {
				return nil, nil, err
			}
		}
	}
	return a.out, a.chosen, nil
}

type underlayAllocator struct {
	segments map[string]Segment
	taken    map[netip.Addr]string
	prev     map[string]string
	out      map[string]netip.Addr
	chosen   map[string]string
}

// give finds the address of one leg: its previous one, or if fresh, a new one.
func (a *underlayAllocator) give(key, segment string, router, fresh bool) error {
	if _, done := a.out[key]; done {
		return nil
	}
	g, ok := a.segments[segment]
	if !ok {
		return fmt.Errorf("address of %s: no segment %q", key, segment)
	}
	addr, err := netip.ParseAddr(a.prev[key])
	if !fresh && (err != nil || !isHost(g.Subnet, addr) || a.taken[addr] != "") {
		return nil
	}
	if fresh {
		if addr, ok = a.free(g.Subnet, router); !ok {
			return fmt.Errorf("address of %s: segment %s (%s) is full", key, g.Name, g.Subnet)
		}
	}
	a.taken[addr] = key
	a.out[key] = addr
	a.chosen[key] = addr.String()
	return nil
}

// free finds a free host address. Routers get the first host of the segment,
// further ones come down from the last; nodes count up from nodeAddressFrom,
// and in a small segment use what is left below it.
func (a *underlayAllocator) free(p netip.Prefix, router bool) (netip.Addr, bool) {
	last := uint32(size(p)) - 2
	if router {
		if addr := offset(p, 1); a.taken[addr] == "" {
			return addr, true
		}
		for n := last; n > 1; n-- {
			if addr := offset(p, n); a.taken[addr] == "" {
				return addr, true
			}
		}
		return netip.Addr{}, false
	}
	for n := uint32(nodeAddressFrom); n <= last; n++ {
		if addr := offset(p, n); a.taken[addr] == "" {
			return addr, true
		}
	}
	for n := uint32(2); n < nodeAddressFrom && n <= last; n++ {
		if addr := offset(p, n); a.taken[addr] == "" {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// isHost reports whether an address is one that a machine of the subnet can
// have: not the network's and not the broadcast address.
func isHost(p netip.Prefix, a netip.Addr) bool {
	if !a.Is4() || !p.Contains(a) {
		return false
	}
	n := uint64(index(p, a))
	return n != 0 && n != size(p)-1
}

// underlay fills in segments, routers, nodes and their routes.
func underlay(c *Cluster, snap *Snapshot, addrs map[string]netip.Addr) {
	subnet := map[string]netip.Prefix{}
	for _, g := range c.Spec.Underlay.Segments {
		subnet[g.Name] = g.Subnet
		snap.Segments = append(snap.Segments, g)
	}
	leg := func(machine, segment string, a netip.Addr, i int) Interface {
		name := "eth" + strconv.Itoa(i)
		return Interface{
			Name: name, Segment: segment, Prefix: netip.PrefixFrom(a, subnet[segment].Bits()),
			MAC: derivedMAC(snap.Lab, machine, name),
		}
	}
	for _, r := range c.Spec.Underlay.Routers {
		rs := RouterState{Name: r.Name}
		for i, g := range r.Segments {
			rs.Interfaces = append(rs.Interfaces, leg(r.Name, g, addrs[r.Name+"/"+g], i))
		}
		snap.Routers = append(snap.Routers, rs)
	}
	for _, n := range c.Spec.Nodes {
		n.Address = addrs[n.Name]
		n.Labels = nodeLabels(n)
		snap.Nodes = append(snap.Nodes, NodeState{
			Node: n, Interface: leg(n.Name, n.Segment, n.Address, 0),
			VTEPMAC: derivedMAC(snap.Lab, n.Name, "flannel.1"),
		})
	}
	underlayRoutes(c, snap)
}
