package topology

import (
	"net/netip"
	"slices"
)

func (v *validator) nodes() {
	nodes := v.c.Spec.Nodes
	if v.bad["spec.nodes"] && len(nodes) == 0 {
		return
	}
	if !slices.ContainsFunc(nodes, func(n Node) bool { return n.InDatapath() || n.HasRole(RoleEtcd) }) {
		v.errorf("spec.nodes", "no-nodes", "no node can run anything: there has to be one that is more than a load balancer")
	}
	seen := map[netip.Addr]string{}
	for i, n := range nodes {
		path := indexPath("spec.nodes", i)
		v.roles(path+".roles", n.Roles)
		v.labels(path+".labels", n.Labels)
		if n.SSH != nil {
			v.port(path+".ssh.port", n.SSH.Port)
		}
		known := v.nodeSegment(path, n)
		if n.Address.IsValid() && unique(v, seen, n.Address, path+".address", "duplicate-address") && known {
			v.nodeAddress(path+".address", n)
		}
	}
	v.rolesFor(v.c.Spec.Components)
	v.roomInSegments()
	v.reachable()
}

func (v *validator) roles(path string, roles []Role) {
	if len(roles) == 0 && !v.bad[path] {
		v.errorf(path, "missing-field", "a node needs a role")
	}
	seen := map[Role]string{}
	for j, r := range roles {
		if p := indexPath(path, j); !v.bad[p] {
			unique(v, seen, r, p, "duplicate-role")
		}
	}
}

// rolesFor checks that real components have nodes to run on.
func (v *validator) rolesFor(c Components) {
	if c != ComponentsLight && c != ComponentsFull {
		return
	}
	for _, r := range []Role{RoleControlPlane, RoleEtcd} {
		if !slices.ContainsFunc(v.c.Spec.Nodes, func(n Node) bool { return n.HasRole(r) }) && !v.bad["spec.components"] {
			v.errorf("spec.components", "missing-role", "components %s need a node with role %s", c, r)
		}
	}
}

// nodeSegment checks the segment of a node. One that is neither given nor
// clear from the address has to be given.
func (v *validator) nodeSegment(path string, n Node) bool {
	p := path + ".segment"
	if v.bad[p] || v.bad["spec.underlay.segments"] && len(v.c.Spec.Underlay.Segments) == 0 {
		return false
	}
	if n.Segment == "" && !v.doc.present(p) {
		if n.Address.IsValid() {
			v.errorf(path+".address", "address-outside", "%s is in no segment", n.Address)
		} else if !v.bad[path+".address"] {
			v.errorf(p, "missing-field", "with several segments a node needs a segment or an address")
		}
		return false
	}
	return v.segment(p, n.Segment)
}

// segmentByName finds a segment whose subnet could be read.
func (v *validator) segmentByName(name string) (g Segment, path string, ok bool) {
	for i, g := range v.c.Spec.Underlay.Segments {
		if path := indexPath("spec.underlay.segments", i) + ".subnet"; g.Name == name {
			return g, path, !v.bad[path] && g.Subnet.IsValid()
		}
	}
	return Segment{}, "", false
}

func (v *validator) nodeAddress(path string, n Node) {
	g, gpath, ok := v.segmentByName(n.Segment)
	if !ok || v.bad[path] {
		return
	}
	switch {
	case !n.Address.Is4():
		v.errorf(path, "bad-address", "%s is no IPv4 address", n.Address)
	case !g.Subnet.Contains(n.Address):
		v.errorf(path, "address-outside", "%s is outside segment %s, %s%s", n.Address, g.Name, g.Subnet, v.where(gpath))
	case index(g.Subnet, n.Address) == 0:
		v.errorf(path, "address-not-host", "%s is the network address of segment %s (%s)", n.Address, g.Name, g.Subnet)
	case !isHost(g.Subnet, n.Address):
		v.errorf(path, "address-not-host", "%s is the broadcast address of segment %s (%s)", n.Address, g.Name, g.Subnet)
	}
}

// roomInSegments checks that every machine finds an address.
func (v *validator) roomInSegments() {
	need := map[string]uint64{}
	for _, n := range v.c.Spec.Nodes {
		need[n.Segment]++
	}
	for _, r := range v.c.Spec.Underlay.Routers {
		for _, g := range r.Segments {
			need[g]++
		}
	}
	vip := v.c.Spec.ControlPlane.LoadBalancer.VIP
	for _, g := range v.c.Spec.Underlay.Segments {
		_, path, ok := v.segmentByName(g.Name)
		if !ok || g.Subnet.Bits() > 30 {
			continue
		}
		count := need[g.Name]
		if isHost(g.Subnet, vip) {
			count++
		}
		if room := size(g.Subnet) - 2; count > room {
			v.errorf(path, "segment-full", "%s has %d addresses; %d machines need one", g.Subnet, room, count)
		}
	}
}

// reachable checks that routers lead from the first node to every other.
func (v *validator) reachable() {
	if v.bad["spec.underlay.routers"] || len(v.c.Spec.Nodes) == 0 {
		return
	}
	home := v.c.Spec.Nodes[0].Segment
	hops := segmentHops(v.c.Spec.Underlay.Routers, home)
	told := map[string]bool{"": true}
	for i, n := range v.c.Spec.Nodes {
		path := indexPath("spec.nodes", i)
		if _, ok := hops[n.Segment]; ok || told[n.Segment] || v.bad[path+".segment"] || v.bad["spec.nodes[0].segment"] {
			continue
		}
		told[n.Segment] = true
		v.errorf(path+".segment", "segment-unreachable", "no router leads from segment %s to segment %s, where %s is",
			n.Segment, home, v.c.Spec.Nodes[0].Name)
	}
}
