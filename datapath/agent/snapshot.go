package agent

import (
	"fmt"
	"net/netip"
	"slices"

	"slipway/datapath/lease"
	"slipway/topology"
)

// device is the underlay device as the kernel has it.
type device struct {
	name   string
	prefix netip.Prefix // the node's address with its network's length
	mac    string
	mtu    int
}

// snapshot is the cluster as the registry has it, for a mode to plan the node
// self from; self is one of the leases. The cluster file gives the settings, and
// segments and routers beyond the node's own wire.
func snapshot(c *topology.Cluster, self string, dev device, leases []lease.Lease) (topology.Snapshot, error) {
	copied := *c
	u := &copied.Spec.Underlay
	u.Segments = slices.Clone(u.Segments)
	own := ownSegment(u, dev)
	copied.Spec.Nodes = nil
	for _, l := range leases {
		copied.Spec.Nodes = append(copied.Spec.Nodes, topology.Node{
			Name: l.Node, Address: l.Address, Roles: rolesOf(c, l.Node), Segment: segmentOf(u, own, l.Address, dev.mtu),
		})
	}
	s, err := topology.Machines(&copied)
	if err != nil {
		return topology.Snapshot{}, fmt.Errorf("place the nodes: %w", err)
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		l := leases[i]
		n.PodCIDR, n.Blocks, n.VTEPMAC = l.Subnet, l.Blocks, l.VTEPMAC
		if s.Network.Mode == topology.CalicoIPIP && len(l.Blocks) > 0 {
			n.TunnelAddress = l.Blocks[0].Addr()
		}
		if n.Name == self {
			n.Interface.Name, n.Interface.Prefix, n.Interface.MAC = dev.name, dev.prefix, dev.mac
			for j := range n.Routes {
				n.Routes[j].Dev = dev.name
			}
		}
	}
	return *s, nil
}

// ownSegment makes the segment that the node's device is in as the kernel says
// that it is, and returns its place.
func ownSegment(u *topology.Underlay, dev device) int {
	i := slices.IndexFunc(u.Segments, func(g topology.Segment) bool { return g.Subnet.Contains(dev.prefix.Addr()) })
	if i < 0 {
		i = len(u.Segments)
		u.Segments = append(u.Segments, topology.Segment{Name: dev.prefix.Masked().String()})
	}
	u.Segments[i].Subnet, u.Segments[i].MTU = dev.prefix.Masked(), dev.mtu
	return i
}

// segmentOf is the name of the segment that an address is in: our own, one of
// the file's, or, for machines that it does not know, one of its own behind
// routers that are not ours either.
func segmentOf(u *topology.Underlay, own int, a netip.Addr, mtu int) string {
	if u.Segments[own].Subnet.Contains(a) {
		return u.Segments[own].Name
	}
	i := slices.IndexFunc(u.Segments, func(g topology.Segment) bool { return g.Subnet.Contains(a) })
	if i < 0 {
		i = len(u.Segments)
		u.Segments = append(u.Segments, topology.Segment{Name: a.String(), Subnet: netip.PrefixFrom(a, a.BitLen()), MTU: mtu})
	}
	return u.Segments[i].Name
}

// rolesOf are a node's in the cluster file. One with a lease takes part in the
// datapath, whatever it is there.
func rolesOf(c *topology.Cluster, name string) []topology.Role {
	for _, n := range c.Spec.Nodes {
		if n.Name == name && (topology.NodeState{Node: n}).InDatapath() {
			return n.Roles
		}
	}
	return []topology.Role{topology.RoleWorker}
}

// usable sorts the leases that the node can follow from those that it cannot,
// and says why. The node's own comes first in any conflict.
func usable(network topology.Network, own lease.Lease, leases []lease.Lease) (out []lease.Lease, reasons []string) {
	out = []lease.Lease{own}
	for _, l := range leases {
		if l.Node == own.Node {
			continue
		}
		if why := unusable(network, l, out); why != "" {
			reasons = append(reasons, fmt.Sprintf("node %s (%s): %s", l.Node, l.Address, why))
			continue
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b lease.Lease) int { return a.Address.Compare(b.Address) })
	return out, reasons
}

// unusable says why a lease cannot be followed beside others.
func unusable(network topology.Network, l lease.Lease, others []lease.Lease) string {
	if want := lease.Backend(network.Mode); l.Backend != want {
		return fmt.Sprintf("its backend is %q, ours %q", l.Backend, want)
	}
	if network.Mode == topology.FlannelVXLAN && l.VTEPMAC == "" {
		return "it does not say its VTEP's MAC"
	}
	for _, p := range prefixes(l) {
		if !network.PodCIDR.Overlaps(p) || p.Bits() < network.PodCIDR.Bits() {
			return fmt.Sprintf("%s is not in the network %s", p, network.PodCIDR)
		}
		for _, o := range others {
			if slices.ContainsFunc(prefixes(o), p.Overlaps) {
				return fmt.Sprintf("%s overlaps what node %s has", p, o.Node)
			}
		}
	}
	for _, o := range others {
		if o.Address == l.Address {
			return "its address is that of node " + o.Node
		}
	}
	return ""
}

// prefixes are what a lease gives a node.
func prefixes(l lease.Lease) []netip.Prefix {
	if l.Subnet.IsValid() {
		return []netip.Prefix{l.Subnet}
	}
	return l.Blocks
}
