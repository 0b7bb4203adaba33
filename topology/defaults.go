package topology

import (
	"fmt"
	"net/netip"
)

// The defaults of the cluster file (docs/cluster-file.md).
const (
	defaultNodePrefix = 24   // flannel's SubnetLen (Documentation/configuration.md)
	defaultVNI        = 1    // flannel pkg/backend/vxlan
	defaultVXLANPort  = 8472 // Linux's own, drivers/net/vxlan, which flannel leaves as it is
	defaultUDPPort    = 8285 // flannel pkg/backend/udp
	defaultASN        = 64512
	defaultMTU        = 1500
	defaultSSHPort    = 22

	// CalicoBlockLength is the prefix length of an IPAM block (calico
	// libcalico-go/lib/apis/v3 IPPoolSpec.BlockSize).
	CalicoBlockLength = 26
)

var (
	defaultPodCIDR     = netip.MustParsePrefix("10.244.0.0/16")
	defaultServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	// defaultNodePorts is the apiserver's --service-node-port-range.
	defaultNodePorts = PortRange{30000, 32767}
)

// setDefault sets a field that the file does not give. A zero that is given
// stays, for the validation to judge.
func setDefault[T comparable](given func(string) bool, path string, field *T, value T) {
	var zero T
	if *field == zero && !given(path) {
		*field = value
	}
}

// applyDefaults fills in what is left out; given reports whether the file has
// a value for a path.
func applyDefaults(c *Cluster, given func(path string) bool) {
	s := &c.Spec
	n := &s.Network
	setDefault(given, "spec.network.mode", &n.Mode, FlannelVXLAN)
	setDefault(given, "spec.network.implementation", &n.Implementation, ImplementationSlipway)
	setDefault(given, "spec.network.podCIDR", &n.PodCIDR, defaultPodCIDR)
	setDefault(given, "spec.network.serviceCIDR", &n.ServiceCIDR, defaultServiceCIDR)
	setDefault(given, "spec.network.nodePrefixLength", &n.NodePrefixLength, defaultNodePrefix)
	setDefault(given, "spec.network.vxlan.vni", &n.VXLAN.VNI, defaultVNI)
	setDefault(given, "spec.network.vxlan.port", &n.VXLAN.Port, defaultVXLANPort)
	setDefault(given, "spec.network.udp.port", &n.UDP.Port, defaultUDPPort)
	setDefault(given, "spec.network.udp.implementation", &n.UDP.Implementation, UDPBatched)
	setDefault(given, "spec.network.bgp.asn", &n.BGP.ASN, defaultASN)
	setDefault(given, "spec.network.bgp.topology", &n.BGP.Topology, FullMesh)
	for i := range n.BGP.Peers {
		setDefault(given, indexPath("spec.network.bgp.peers", i)+".asn", &n.BGP.Peers[i].ASN, n.BGP.ASN)
	}
	setDefault(given, "spec.network.ipip.policy", &n.IPIP.Policy, IPIPAlways)
	setDefault(given, "spec.network.ipip.implementation", &n.IPIP.Implementation, IPIPAuto)
	setDefault(given, "spec.proxy.mode", &s.Proxy.Mode, ProxyIPTables)
	setDefault(given, "spec.proxy.nodePorts", &s.Proxy.NodePorts, defaultNodePorts)
	setDefault(given, "spec.components", &s.Components, ComponentsNone)
	defaultSegments(s, given)
	defaultNodes(s, given)
	defaultLoadBalancer(s, given)
}

// defaultLoadBalancer puts a balancer on every node, unless there is nothing to
// balance: a single apiserver, and not a word about load balancers.
func defaultLoadBalancer(s *Spec, given func(string) bool) {
	const path = "spec.controlPlane.loadBalancer"
	mode, masters := BalancerNodeLocal, 0
	for _, n := range s.Nodes {
		if n.HasRole(RoleControlPlane) {
			masters++
		}
	}
	if masters <= 1 && !given(path) {
		mode = BalancerNone
	}
	setDefault(given, path+".mode", &s.ControlPlane.LoadBalancer.Mode, mode)
	setDefault(given, path+".software", &s.ControlPlane.LoadBalancer.Software, NGINX)
}

// defaultSegments gives one segment to a file without any, subnets counted up
// from 192.168.233.0/24 to those without, and Ethernet's MTU.
func defaultSegments(s *Spec, given func(string) bool) {
	if len(s.Underlay.Segments) == 0 && !given("spec.underlay.segments") {
		s.Underlay.Segments = []Segment{{Name: "rack1"}}
	}
	const first = 233
	for i := range s.Underlay.Segments {
		g, path := &s.Underlay.Segments[i], indexPath("spec.underlay.segments", i)
		if first+i <= 255 {
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(first + i), 0}), 24)
			setDefault(given, path+".subnet", &g.Subnet, subnet)
		}
		setDefault(given, path+".mtu", &g.MTU, defaultMTU)
	}
}

// defaultNodes gives one control-plane node and two workers to a file without
// any, roles and segments to nodes without.
func defaultNodes(s *Spec, given func(string) bool) {
	if len(s.Nodes) == 0 && !given("spec.nodes") && len(s.Underlay.Segments) > 0 {
		s.Nodes = []Node{
			{Name: "master01", Roles: []Role{RoleControlPlane, RoleEtcd}},
			{Name: "node01", Roles: []Role{RoleWorker}},
			{Name: "node02", Roles: []Role{RoleWorker}},
		}
		for i := range s.Nodes {
			s.Nodes[i].Segment = s.Underlay.Segments[0].Name
		}
	}
	for i := range s.Nodes {
		n, path := &s.Nodes[i], fmt.Sprintf("spec.nodes[%d]", i)
		if len(n.Roles) == 0 && !given(path+".roles") {
			n.Roles = []Role{RoleWorker}
		}
		setDefault(given, path+".segment", &n.Segment, segmentFor(s.Underlay.Segments, n.Address))
		if n.SSH != nil {
			setDefault(given, path+".ssh.port", &n.SSH.Port, defaultSSHPort)
		}
	}
}

// segmentFor is the only segment, or the one that an address lies in; empty if
// that is not clear.
func segmentFor(segments []Segment, a netip.Addr) string {
	if len(segments) == 1 {
		return segments[0].Name
	}
	for _, g := range segments {
		if a.IsValid() && g.Subnet.Contains(a) {
			return g.Name
		}
	}
	return ""
}
