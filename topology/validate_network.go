package topology

import (
	"net/netip"
	"slices"
)

// The limits of an MTU in bytes. 576 is what every IPv4 host must be able to
// take in (RFC 791 §3.1), so inner packets need room for it; 65535 is the
// largest IPv4 packet (its 16-bit total length).
const (
	minPodMTU = 576
	maxMTU    = 65535
)

func (v *validator) network() {
	n, path := v.c.Spec.Network, "spec.network"
	v.cidr(path+".podCIDR", n.PodCIDR)
	if v.cidr(path+".serviceCIDR", n.ServiceCIDR) {
		v.serviceCIDR(path + ".serviceCIDR")
	}
	v.overlaps()
	v.between(path+".vxlan.vni", int64(n.VXLAN.VNI), 1, 1<<24-1) // 24 bits, RFC 7348 §5
	v.port(path+".vxlan.port", n.VXLAN.Port)
	v.port(path+".udp.port", n.UDP.Port)
	v.implementation()
	v.bgp()
	v.podCapacity()
	v.mtu()
	v.adjacency()
}

// implementation checks that upstream's programs are there for what is asked.
func (v *validator) implementation() {
	n, path := v.c.Spec.Network, "spec.network.implementation"
	if n.Implementation != ImplementationUpstream {
		return
	}
	switch {
	case v.bad["spec.network.mode"]:
	case n.Mode == CalicoIPIP:
		// Debian has neither: BIRD 2 does without, and its BIRD 1 is not patched.
		v.errorf(path, "conflicting-fields", "of mode %s there is only slipway's implementation: calico's needs the kernel's ipip, and krt_tunnel of its own patched BIRD", n.Mode)
	case n.Mode.IsCalico() && n.BGP.Topology == RouteReflectors:
		v.errorf(path, "conflicting-fields", "with route reflectors there is only slipway's implementation: upstream's is set up as a full mesh")
	}
	if v.c.Spec.Components != ComponentsFull {
		v.errorf(path, "conflicting-fields", "upstream's programs run with components: full only")
	}
}

// reservedRanges are blocks that no pod, service or machine can have: of RFC
// 6890, and calico's gateway, which is link-local.
var reservedRanges = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/3"), "multicast and reserved"},
}

// cidr checks one subnet by itself.
func (v *validator) cidr(path string, p netip.Prefix) bool {
	switch {
	case v.bad[path]:
		return false
	case !p.IsValid():
		v.errorf(path, "missing-field", "a subnet is needed here")
		return false
	case !p.Addr().Is4():
		v.errorf(path, "bad-cidr", "%s is not IPv4, the only family that a lab has", p)
		return false
	case p != p.Masked():
		v.errorf(path, "bad-cidr", "%s has host bits set; did you mean %q?", p, p.Masked())
		return false
	}
	for _, r := range reservedRanges {
		if r.prefix.Overlaps(p) {
			v.errorf(path, "reserved-cidr", "%s overlaps %s (%s)", p, r.prefix, r.why)
			return false
		}
	}
	return true
}

// serviceCIDR checks the size: the tenth address is the DNS's, and the
// apiserver takes at most 20 bits (cmd/kube-apiserver/app/options validation).
func (v *validator) serviceCIDR(path string) {
	if bits := v.c.Spec.Network.ServiceCIDR.Bits(); bits > 28 || bits < 12 {
		v.errorf(path, "out-of-range", "/%d is out of range for services; want /12 to /28", bits)
	}
}

// overlaps reports each subnet that overlaps one listed before it.
func (v *validator) overlaps() {
	type subnet struct {
		path   string
		prefix netip.Prefix
	}
	all := []subnet{
		{"spec.network.podCIDR", v.c.Spec.Network.PodCIDR},
		{"spec.network.serviceCIDR", v.c.Spec.Network.ServiceCIDR},
	}
	for i, g := range v.c.Spec.Underlay.Segments {
		all = append(all, subnet{indexPath("spec.underlay.segments", i) + ".subnet", g.Subnet})
	}
	all = slices.DeleteFunc(all, func(s subnet) bool { return v.bad[s.path] })
	for i, b := range all {
		for _, a := range all[:i] {
			if !a.prefix.Overlaps(b.prefix) {
				continue
			}
			at, other := b, a
			if !v.doc.present(b.path) && v.doc.present(a.path) {
				at, other = a, b // complain about what the author wrote
			}
			v.errorf(at.path, "cidr-overlap", "%s overlaps %s, %s%s", at.prefix, other.path, other.prefix, v.where(other.path))
			break
		}
	}
}

// AS numbers that RFC 7607, RFC 6793 §9 and RFC 7300 keep back.
func reservedASN(asn uint32) bool {
	return asn == 0 || asn == 23456 || asn == 65535 || asn == 1<<32-1
}

func (v *validator) bgp() {
	b, path := v.c.Spec.Network.BGP, "spec.network.bgp"
	if !v.bad[path+".asn"] && reservedASN(b.ASN) {
		v.errorf(path+".asn", "bad-asn", "AS %d is reserved", b.ASN)
	}
	v.bgpPeers(path + ".peers")
	list := path + ".routeReflectors"
	switch {
	case v.bad[list]:
	case b.Topology == RouteReflectors && len(b.RouteReflectors) == 0:
		v.errorf(list, "missing-field", "topology route-reflectors needs names of nodes or routers in routeReflectors")
	case b.Topology == FullMesh && len(b.RouteReflectors) > 0:
		v.errorf(list, "conflicting-fields", "routeReflectors need topology route-reflectors")
	}
	var known []string
	for _, n := range v.c.Spec.Nodes {
		if n.InDatapath() {
			known = append(known, n.Name)
		}
	}
	for _, r := range v.c.Spec.Underlay.Routers {
		known = append(known, r.Name)
	}
	seen := map[string]string{}
	for i, name := range b.RouteReflectors {
		p := indexPath(list, i)
		switch {
		case v.bad[p]:
		case !slices.Contains(known, name):
			v.errorf(p, "unknown-node", "no node or router %q to reflect routes%s", shorten(name), suggest(name, known))
		default:
			unique(v, seen, name, p, "duplicate-name")
		}
	}
}

// bgpPeers checks the speakers outside the cluster: the address of each is in a
// segment and no speaker's own.
func (v *validator) bgpPeers(list string) {
	seen := map[netip.Addr]string{}
	for i, n := range v.c.Spec.Nodes {
		if n.InDatapath() && n.Address.IsValid() {
			seen[n.Address] = indexPath("spec.nodes", i) + ".address"
		}
	}
	for i, p := range v.c.Spec.Network.BGP.Peers {
		path := indexPath(list, i)
		if !v.bad[path+".asn"] && reservedASN(p.ASN) {
			v.errorf(path+".asn", "bad-asn", "AS %d is reserved", p.ASN)
		}
		near := slices.ContainsFunc(v.c.Spec.Underlay.Segments, func(g Segment) bool { return g.Subnet.Contains(p.Address) })
		switch path += ".address"; {
		case v.bad[path]:
		case !p.Address.IsValid():
			v.errorf(path, "missing-field", "a peer needs an address")
		case !near:
			v.errorf(path, "address-outside", "%s is in no segment", p.Address)
		default:
			unique(v, seen, p.Address, path, "duplicate-address")
		}
	}
}

// podCapacity checks that every node of the datapath gets a lease or a block.
func (v *validator) podCapacity() {
	n, pods, length := v.c.Spec.Network, "spec.network.podCIDR", "spec.network.nodePrefixLength"
	if v.bad[pods] || v.bad[length] {
		return
	}
	bits, kind := CalicoBlockLength, "blocks"
	if n.Mode.IsFlannel() {
		v.between(length, int64(n.NodePrefixLength), 1, 30)
		bits, kind = n.NodePrefixLength, "node subnets"
	}
	nodes := 0
	for _, node := range v.c.Spec.Nodes {
		if node.InDatapath() {
			nodes++
		}
	}
	if v.bad[length] {
		return
	}
	room := 0
	if bits >= n.PodCIDR.Bits() {
		room = 1 << (bits - n.PodCIDR.Bits())
	}
	if room < nodes {
		at := pods
		if !v.doc.present(pods) && v.doc.present(length) {
			at = length
		}
		v.errorf(at, "pod-cidr-too-small", "%s has room for %d %s of /%d; %d nodes need one each", n.PodCIDR, room, kind, bits, nodes)
	}
}

// mtu checks that the segments carry the encapsulation and leave minPodMTU.
func (v *validator) mtu() {
	n, overhead := v.c.Spec.Network, v.c.Spec.Network.Mode.Overhead()
	path := "spec.network.mtu"
	for i, g := range v.c.Spec.Underlay.Segments {
		p := indexPath("spec.underlay.segments", i) + ".mtu"
		switch inner := g.MTU - overhead; {
		case v.bad[p]:
		case g.MTU > maxMTU:
			v.errorf(p, "mtu-too-large", "%d is more than an IPv4 packet can have, %d", g.MTU, maxMTU)
		case inner < minPodMTU:
			v.errorf(p, "mtu-too-small", "%d leaves %d bytes for pods after %s's %d; they need %d", g.MTU, inner, n.Mode, overhead, minPodMTU)
		case n.MTU != 0 && !v.bad[path] && int(n.MTU) > inner:
			v.errorf(path, "mtu-too-large", "%d does not fit segment %s: its MTU %d%s less %s's %d leaves %d",
				n.MTU, g.Name, g.MTU, v.where(p), n.Mode, overhead, inner)
		}
	}
	if n.MTU != 0 && !v.bad[path] && n.MTU < minPodMTU {
		v.errorf(path, "mtu-too-small", "%d is less than the %d bytes that every IPv4 host must take in", n.MTU, minPodMTU)
	}
}

// adjacency refuses host-gw across routers: its routes name the other node as
// the gateway, which has to be on the same link.
func (v *validator) adjacency() {
	if v.c.Spec.Network.Mode != FlannelHostGW || v.bad["spec.network.mode"] {
		return
	}
	first := -1
	for i, n := range v.c.Spec.Nodes {
		if !n.InDatapath() || n.Segment == "" {
			continue
		}
		if first < 0 {
			first = i
		}
		if home := v.c.Spec.Nodes[first]; n.Segment != home.Segment {
			path := indexPath("spec.nodes", i)
			v.errorf("spec.network.mode", "not-adjacent",
				"flannel-host-gw needs all nodes in one segment, but %s is in %s and %s in %s%s",
				home.Name, home.Segment, n.Name, n.Segment, v.where(path))
			return
		}
	}
}
