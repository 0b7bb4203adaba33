package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"slipway/topology"
)

// machine is anything with legs in the underlay: node, router, external client.
type machine struct {
	name    string
	legs    []topology.Interface
	routes  []topology.UnderlayRoute
	forward bool // a router forwards; nodes get their sysctls from the mode
	// foreign are the addresses of all machines, on one whose own programs give it
	// more addresses (keepalived): it keeps those, but for another machine's.
	foreign map[netip.Addr]bool
}

// keeps reports whether an address that is not planned stays.
func (m machine) keeps(a netip.Addr) bool { return m.foreign != nil && !m.foreign[a] }

// machinesOf lists what the underlay has plugged in.
func machinesOf(s *topology.Snapshot) ([]machine, error) {
	var out []machine
	for _, r := range s.Routers {
		out = append(out, machine{name: r.Name, legs: r.Interfaces, routes: r.Routes, forward: true})
	}
	var used map[netip.Addr]bool
	if s.Components.Real() {
		used = usedAddresses(s)
	}
	for _, n := range s.Nodes {
		routes := append(slices.Clone(n.Routes), defaultRoute(s, n.Interface))
		out = append(out, machine{name: n.Name, legs: []topology.Interface{n.Interface}, routes: routes, foreign: used})
	}
	ext, err := externalOf(s)
	if err != nil {
		return nil, err
	}
	return append(out, ext), nil
}

// defaultRoute leads a node's packets to the first router of its segment, or
// where there is none nowhere but onto the segment. Kubernetes asks every node
// for one: before kube-proxy's rules see a packet that the node itself sends to
// a service, or one that a pod sends to a service without endpoints, the kernel
// wants a route for it.
func defaultRoute(s *topology.Snapshot, leg topology.Interface) topology.UnderlayRoute {
	r := topology.UnderlayRoute{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Dev: leg.Name}
	for _, router := range s.Routers {
		for _, i := range router.Interfaces {
			if i.Segment == leg.Segment {
				r.Via = i.Prefix.Addr()
				return r
			}
		}
	}
	return r
}

// externalOf plans the client outside the cluster: on the first segment, with
// the highest address that nobody has, and a node's routes to other segments.
func externalOf(s *topology.Snapshot) (machine, error) {
	if len(s.Segments) == 0 {
		return machine{}, fmt.Errorf("plan %s: the cluster has no segment", ExternalName)
	}
	seg := s.Segments[0]
	addr, err := highestFree(seg.Subnet, usedAddresses(s))
	if err != nil {
		return machine{}, fmt.Errorf("plan %s on segment %s: %w", ExternalName, seg.Name, err)
	}
	leg := topology.Interface{
		Name: "eth0", Segment: seg.Name, Prefix: netip.PrefixFrom(addr, seg.Subnet.Bits()),
		MAC: topology.MAC(s.Lab, ExternalName, "eth0"),
	}
	return machine{name: ExternalName, legs: []topology.Interface{leg}, routes: topology.RoutesFrom(s, seg.Name)}, nil
}

func usedAddresses(s *topology.Snapshot) map[netip.Addr]bool {
	used := map[netip.Addr]bool{}
	for _, n := range s.Nodes {
		used[n.Address] = true
	}
	for _, r := range s.Routers {
		for _, l := range r.Interfaces {
			used[l.Prefix.Addr()] = true
		}
	}
	return used
}

// highestFree walks down from the address before the broadcast address.
func highestFree(p netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error) {
	a := lastAddr(p).Prev()
	for p.Contains(a) && a != p.Masked().Addr() {
		if !used[a] {
			return a, nil
		}
		a = a.Prev()
	}
	return netip.Addr{}, fmt.Errorf("no address left in %s", p)
}

// lastAddr is the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(b)
}
