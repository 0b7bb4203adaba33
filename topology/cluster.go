package topology

import (
	"cmp"
	"net/netip"
	"time"
)

// APIVersion and KindCluster are what a cluster file must say of itself.
const (
	APIVersion  = "slipway/v1alpha1"
	KindCluster = "Cluster"
)

// Cluster is a cluster file after parsing and defaulting (DESIGN.md §2).
type Cluster struct {
	APIVersion string   `yaml:"apiVersion" json:"apiVersion"`
	Kind       string   `yaml:"kind" json:"kind"`
	Metadata   Metadata `yaml:"metadata" json:"metadata"`
	Spec       Spec     `yaml:"spec,omitempty" json:"spec"`
}

// Metadata names the cluster; the lab built from it has the same name.
type Metadata struct {
	Name string `yaml:"name" json:"name"`
}

// Spec is what a cluster consists of.
type Spec struct {
	Network      Network      `yaml:"network,omitempty" json:"network"`
	Proxy        Proxy        `yaml:"proxy,omitempty" json:"proxy"`
	Underlay     Underlay     `yaml:"underlay,omitempty" json:"underlay"`
	Nodes        []Node       `yaml:"nodes,omitempty" json:"nodes"`
	ControlPlane ControlPlane `yaml:"controlPlane,omitempty" json:"controlPlane"`
	Components   Components   `yaml:"components,omitempty" json:"components"`
	// Manifests are paths of Kubernetes YAML files, relative to the cluster file.
	Manifests []string `yaml:"manifests,omitempty" json:"manifests,omitempty"`
	// Programs are the user's own, in the place of those of the catalogue.
	Programs []Program `yaml:"programs,omitempty" json:"programs,omitempty"`
}

// Components says how much of Kubernetes really runs in the nodes.
type Components string

// The three depths of a lab (DESIGN.md §7).
const (
	ComponentsNone  Components = "none"
	ComponentsLight Components = "light"
	ComponentsFull  Components = "full"
)

// Real reports whether components of Kubernetes really run: the API server is
// then what says which pods and services there are.
func (c Components) Real() bool { return c == ComponentsLight || c == ComponentsFull }

// ModeName names a datapath mode.
type ModeName string

// The five datapath modes.
const (
	FlannelUDP    ModeName = "flannel-udp"
	FlannelVXLAN  ModeName = "flannel-vxlan"
	FlannelHostGW ModeName = "flannel-host-gw"
	CalicoBGP     ModeName = "calico-bgp"
	CalicoIPIP    ModeName = "calico-ipip"
)

// ModeNames lists the modes in the order in which they are shown.
func ModeNames() []ModeName {
	return []ModeName{FlannelUDP, FlannelVXLAN, FlannelHostGW, CalicoBGP, CalicoIPIP}
}

// IsFlannel reports whether pods sit behind a cni0 bridge with one subnet a node.
func (m ModeName) IsFlannel() bool {
	return m == FlannelUDP || m == FlannelVXLAN || m == FlannelHostGW
}

// IsCalico reports whether pods have routed /32 veths and nodes own /26 blocks.
func (m ModeName) IsCalico() bool { return m == CalicoBGP || m == CalicoIPIP }

// Encapsulation overheads in bytes over an IPv4 underlay: what a mode's inner
// MTU is smaller by than the underlay's.
const (
	OverheadUDP   = 28 // IPv4 20 + UDP 8 (flannel backend/udp)
	OverheadVXLAN = 50 // IPv4 20 + UDP 8 + VXLAN 8 + inner Ethernet 14 (RFC 7348 §5)
	OverheadIPIP  = 20 // IPv4 20 (RFC 2003 §3)
)

// Overhead returns the mode's encapsulation overhead in bytes.
func (m ModeName) Overhead() int {
	switch m {
	case FlannelUDP:
		return OverheadUDP
	case FlannelVXLAN:
		return OverheadVXLAN
	case CalicoIPIP:
		return OverheadIPIP
	default:
		return 0
	}
}

// Network is the pod and service network.
type Network struct {
	Mode ModeName `yaml:"mode,omitempty" json:"mode"`
	// Implementation is whose programs do it on nodes where all is real.
	Implementation Implementation `yaml:"implementation,omitempty" json:"implementation,omitempty"`
	PodCIDR        netip.Prefix   `yaml:"podCIDR,omitzero" json:"podCIDR"`
	ServiceCIDR    netip.Prefix   `yaml:"serviceCIDR,omitzero" json:"serviceCIDR"`
	// NodePrefixLength is the length of each node's pod subnet in the flannel
	// modes; the calico modes hand out blocks of /26.
	NodePrefixLength int   `yaml:"nodePrefixLength,omitempty" json:"nodePrefixLength"`
	MTU              MTU   `yaml:"mtu,omitempty" json:"mtu"`
	VXLAN            VXLAN `yaml:"vxlan,omitempty" json:"vxlan"`
	UDP              UDP   `yaml:"udp,omitempty" json:"udp"`
	BGP              BGP   `yaml:"bgp,omitempty" json:"bgp"`
	IPIP             IPIP  `yaml:"ipip,omitempty" json:"ipip"`
}

// Implementation says whose programs make the pod network of a full cluster.
type Implementation string

// The implementations.
const (
	ImplementationSlipway  Implementation = "slipway"
	ImplementationUpstream Implementation = "upstream"
)

// MTU is a pod MTU in bytes; zero stands for "auto": underlay minus overhead.
type MTU int

// VXLAN configures flannel-vxlan.
type VXLAN struct {
	VNI           int  `yaml:"vni,omitempty" json:"vni"`
	Port          int  `yaml:"port,omitempty" json:"port"`
	DirectRouting bool `yaml:"directRouting,omitempty" json:"directRouting"`
}

// UDPImplementation picks how flannel-udp moves packets (DESIGN.md §5).
type UDPImplementation string

// The implementations of the flannel-udp wire format.
const (
	UDPSimple  UDPImplementation = "simple"
	UDPBatched UDPImplementation = "batched"
	UDPeBPF    UDPImplementation = "ebpf"
)

// UDP configures flannel-udp.
type UDP struct {
	Port           int               `yaml:"port,omitempty" json:"port"`
	Implementation UDPImplementation `yaml:"implementation,omitempty" json:"implementation"`
}

// BGPTopology says who peers with whom.
type BGPTopology string

// The two BGP topologies.
const (
	FullMesh        BGPTopology = "full-mesh"
	RouteReflectors BGPTopology = "route-reflectors"
)

// BGP configures calico-bgp and the route exchange of calico-ipip.
type BGP struct {
	ASN      uint32      `yaml:"asn,omitempty" json:"asn"`
	Topology BGPTopology `yaml:"topology,omitempty" json:"topology"`
	// RouteReflectors are names of nodes (or routers) that reflect.
	RouteReflectors []string `yaml:"routeReflectors,omitempty" json:"routeReflectors,omitempty"`
	// Peers are speakers that are not the cluster's own.
	Peers []BGPPeer `yaml:"peers,omitempty" json:"peers,omitempty"`
}

// BGPPeer is a speaker outside the cluster, such as a top-of-rack switch. It
// connects to the cluster's speakers, which wait for it.
type BGPPeer struct {
	Address netip.Addr `yaml:"address" json:"address"`
	ASN     uint32     `yaml:"asn,omitempty" json:"asn"`
}

// IPIPPolicy says between which nodes calico-ipip encapsulates.
type IPIPPolicy string

// The IPIP policies: between all nodes, or only between segments.
const (
	IPIPAlways      IPIPPolicy = "always"
	IPIPCrossSubnet IPIPPolicy = "cross-subnet"
)

// IPIPImplementation picks who encapsulates; empty stands for "auto".
type IPIPImplementation string

// The implementations of IPIP, best first; auto takes the first that works.
const (
	IPIPAuto      IPIPImplementation = "auto"
	IPIPKernel    IPIPImplementation = "kernel"
	IPIPeBPF      IPIPImplementation = "ebpf"
	IPIPUserspace IPIPImplementation = "userspace"
)

// IPIP configures calico-ipip.
type IPIP struct {
	Policy         IPIPPolicy         `yaml:"policy,omitempty" json:"policy"`
	Implementation IPIPImplementation `yaml:"implementation,omitempty" json:"implementation"`
}

// ProxyMode picks kube-proxy's backend.
type ProxyMode string

// The kube-proxy backends.
const (
	ProxyIPTables ProxyMode = "iptables"
	ProxyNFTables ProxyMode = "nftables"
)

// PortRange is an inclusive range of ports, written "30000-32767".
type PortRange struct{ First, Last int }

// Proxy configures kube-proxy's part.
type Proxy struct {
	Mode      ProxyMode `yaml:"mode,omitempty" json:"mode"`
	NodePorts PortRange `yaml:"nodePorts,omitempty" json:"nodePorts"`
}

// Underlay is the network that the nodes are plugged into.
type Underlay struct {
	Segments []Segment `yaml:"segments,omitempty" json:"segments"`
	Routers  []Router  `yaml:"routers,omitempty" json:"routers,omitempty"`
}

// Segment is one L2 broadcast domain of the underlay: a bridge in the fabric.
// Rate limits every port, both ways; Delay and Loss act once per crossing.
type Segment struct {
	Name   string       `yaml:"name" json:"name"`
	Subnet netip.Prefix `yaml:"subnet,omitzero" json:"subnet"`
	MTU    int          `yaml:"mtu,omitempty" json:"mtu"` // bytes of IP packet
	Rate   Rate         `yaml:"rate,omitempty" json:"rate,omitempty"`
	Delay  Duration     `yaml:"delay,omitempty" json:"delay,omitempty"`
	Loss   Percent      `yaml:"loss,omitempty" json:"loss,omitempty"`
}

// Shaped reports whether the segment limits, delays or loses packets.
func (s Segment) Shaped() bool { return s.Rate != 0 || s.Delay != 0 || s.Loss != 0 }

// Rate is a bandwidth in bit/s, written "1Gbit"; zero is unlimited.
type Rate uint64

// Duration is a time.Duration written in Go's notation ("1ms").
type Duration time.Duration

// Percent is a share of 0 to 100, written "0.1%".
type Percent float64

// Router joins segments at layer 3.
type Router struct {
	Name     string   `yaml:"name" json:"name"`
	Segments []string `yaml:"segments" json:"segments"`
}

// Role is what a node is for.
type Role string

// The roles of nodes.
const (
	RoleControlPlane Role = "control-plane"
	RoleEtcd         Role = "etcd"
	RoleWorker       Role = "worker"
	RoleLoadBalancer Role = "load-balancer"
)

// Node is one machine.
type Node struct {
	Name    string     `yaml:"name" json:"name"`
	Roles   []Role     `yaml:"roles,omitempty" json:"roles"`
	Segment string     `yaml:"segment,omitempty" json:"segment"`
	Address netip.Addr `yaml:"address,omitzero" json:"address,omitzero"`
	// Labels take part in nodeSelector placement.
	Labels map[string]string `yaml:"labels,omitempty" json:"labels,omitempty"`
	SSH    *SSH              `yaml:"ssh,omitempty" json:"ssh,omitempty"`
}

// HasRole reports whether the node has the role.
func (n Node) HasRole(r Role) bool {
	for _, x := range n.Roles {
		if x == r {
			return true
		}
	}
	return false
}

// SSH says how the installer reaches the node as a real host.
type SSH struct {
	Host string `yaml:"host,omitempty" json:"host,omitempty"`
	User string `yaml:"user,omitempty" json:"user,omitempty"`
	Port int    `yaml:"port,omitempty" json:"port,omitempty"`
}

// ControlPlane configures how clients reach the apiservers, and these etcd's data.
type ControlPlane struct {
	LoadBalancer LoadBalancer `yaml:"loadBalancer,omitempty" json:"loadBalancer"`
	Etcd         Etcd         `yaml:"etcd,omitzero" json:"etcd,omitzero"`
}

// Etcd configures the members of etcd. What suits them follows from the slowest
// way between two of them, and from their slowest disk.
type Etcd struct {
	// Heartbeat is how often the leader says that it is there; Election how long a
	// member hears nothing before it wants to be the leader. Zero is etcd's default.
	Heartbeat Interval `yaml:"heartbeat,omitzero" json:"heartbeat,omitzero"`
	Election  Interval `yaml:"election,omitzero" json:"election,omitzero"`
}

// Intervals are the two with etcd's defaults.
func (e Etcd) Intervals() (heartbeat, election Interval) {
	return cmp.Or(e.Heartbeat, DefaultEtcdHeartbeat), cmp.Or(e.Election, DefaultEtcdElection)
}

// Interval is a time of whole milliseconds written in Go's notation ("500ms").
type Interval time.Duration

// The intervals that members of etcd have by themselves (go.etcd.io/etcd
// server/embed/config.go, NewConfig).
const (
	DefaultEtcdHeartbeat = Interval(100 * time.Millisecond)
	DefaultEtcdElection  = Interval(time.Second)
)

// LoadBalancer is the balancer in front of the apiservers.
type LoadBalancer struct {
	Mode     BalancerMode `yaml:"mode,omitempty" json:"mode,omitempty"`
	Software Balancer     `yaml:"software,omitempty" json:"software,omitempty"`
	VIP      netip.Addr   `yaml:"vip,omitzero" json:"vip,omitzero"`
	// NoPreempt leaves the VIP where it went, also when the machine that had it
	// is back.
	NoPreempt bool `yaml:"nopreempt,omitempty" json:"nopreempt,omitempty"`
}

// BalancerMode is where the API is balanced.
type BalancerMode string

// The places.
const (
	BalancerNone      BalancerMode = "none"       // clients go to the first apiserver
	BalancerNodeLocal BalancerMode = "node-local" // one on every node
	BalancerExternal  BalancerMode = "external"   // nodes of role load-balancer, a VIP
)

// Balancer is the program that balances.
type Balancer string

// The programs.
const (
	NGINX   Balancer = "nginx"
	HAProxy Balancer = "haproxy"
	Envoy   Balancer = "envoy"
)
