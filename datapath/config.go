package datapath

import (
	"net/netip"

	"slipway/topology"
)

// Mode plans one datapath mode.
type Mode interface {
	// Name is the mode's name in the cluster file.
	Name() topology.ModeName
	// Check reports why the snapshot cannot run in this mode, in one error per
	// reason (errors.Join); nil if it can.
	Check(topology.Snapshot) error
	// Plan computes everything that the node's kernel must hold.
	Plan(s topology.Snapshot, node string) (NodeConfig, error)
	// PlanRouter computes what an underlay router must hold beyond its own
	// segments: nothing in most modes; a BGP peer in calico-bgp.
	PlanRouter(s topology.Snapshot, router string) (NodeConfig, error)
}

// NodeConfig is everything that the kernel of one node must hold for pods and
// services to work, beyond its plain underlay interfaces. Pure data.
type NodeConfig struct {
	Node      string
	Sysctls   []Sysctl
	Links     []Link
	Routes    []Route
	Neighbors []Neighbor
	FDB       []FDBEntry
	RuleSets  []RuleSet
	PodPorts  []PodPort
	UDPTunnel *UDPTunnel
	IPIP      *IPIPTunnel
	BGP       *Speaker
	// PodRange is the cluster's pod CIDR: routes inside it belong to the mode,
	// so that the applier removes those that are not wanted.
	PodRange netip.Prefix
	// ForeignChains are prefixes of iptables chains that another program on the
	// node owns, such as "KUBE-" where a real kube-proxy runs: the applier
	// leaves chains alone that begin so and are in none of the RuleSets.
	ForeignChains []string
}

// Sysctl is one value below /proc/sys/net of the node's namespace.
type Sysctl struct {
	Key   string // "net/ipv4/ip_forward"
	Value string
}

// LinkKind is the kernel's name of a link type.
type LinkKind string

// The kinds of links that modes plan.
const (
	Bridge LinkKind = "bridge"
	VXLAN  LinkKind = "vxlan"
	TUN    LinkKind = "tun"  // persistent TUN without packet information
	IPIP   LinkKind = "ipip" // kernel IPIP or a TUN that the eBPF programs serve
)

// Link is a device that the node must have.
type Link struct {
	Name      string
	Kind      LinkKind
	MTU       int // bytes of IP packet
	MAC       string
	Addresses []netip.Prefix
	VXLAN     *VXLANAttrs
	Hairpin   bool // bridge: ports are set to hairpin mode
	VNetHdr   bool // tun: packets carry a virtio_net_hdr (IFF_VNET_HDR)
}

// VXLANAttrs are the attributes of a VTEP (RFC 7348).
type VXLANAttrs struct {
	VNI      int
	Port     int // UDP destination port
	Local    netip.Addr
	Device   string // underlay device
	Learning bool
	// External: a VXLAN-GPE device for IP packets, of every VNI, without remotes
	// of its own; programs decide where it sends (`gpe external`). VNI, Local and
	// Device mean nothing then.
	External bool
}

// RouteProtocol is a value of rtm_protocol (linux include/uapi/linux/rtnetlink.h).
type RouteProtocol int

// The protocols that slipway marks routes with.
const (
	ProtoKernel RouteProtocol = 2
	ProtoBoot   RouteProtocol = 3
	ProtoStatic RouteProtocol = 4
	ProtoBird   RouteProtocol = 12 // RTPROT_BIRD: learnt by BGP
)

// RouteType is unicast unless set.
type RouteType string

// The route types that modes plan.
const (
	Unicast   RouteType = ""
	Blackhole RouteType = "blackhole"
)

// Route is one entry of the main table.
type Route struct {
	Dst       netip.Prefix
	Type      RouteType
	Via       netip.Addr // invalid: directly connected
	Dev       string
	Src       netip.Addr
	Onlink    bool
	LinkScope bool // scope link
	Protocol  RouteProtocol
	MTU       int
}

// Neighbor is a permanent ARP entry.
type Neighbor struct {
	Dev     string
	Address netip.Addr
	MAC     string
}

// FDBEntry maps a remote VTEP's MAC to its underlay address.
type FDBEntry struct {
	Dev string
	MAC string
	Dst netip.Addr
}

// PodPort is how one pod is plugged into the node; the CNI plugin makes it.
type PodPort struct {
	Pod          string // "namespace/name"
	NetNS        string // name of the pod's network namespace; filled in by the lab
	HostIf       string // veth… or cali…
	ContainerIf  string // eth0
	HostMAC      string // set on the host end when not empty
	ContainerMAC string
	Address      netip.Prefix // /24 behind a bridge, /32 when routed
	Gateway      netip.Addr
	// GatewayMAC, if set, makes pod and node know each other by permanent
	// neighbour entries instead of ARP. The kernel's table of those that ARP
	// learns is one for all namespaces (net.ipv4.neigh.default.gc_thresh3, 1024
	// by default), which a lab with many pods would overflow.
	GatewayMAC string
	Bridge     string // empty: routed, with proxy ARP on the host end
	Hairpin    bool
	MTU        int
}

// UDPTunnel is a flannel UDP backend: IPv4 packets from a TUN carried bare in
// UDP datagrams (flannel pkg/backend/udp).
type UDPTunnel struct {
	Device         string // flannel0
	Underlay       string // eth0
	MTU            int
	Local          netip.AddrPort
	Implementation topology.UDPImplementation
	Network        netip.Prefix  // all leases lie in it
	Leases         []TunnelLease // the other nodes
}

// TunnelLease says behind which node a subnet is.
type TunnelLease struct {
	Subnet netip.Prefix
	Remote netip.AddrPort
}

// IPIPTunnel is calico's tunl0.
type IPIPTunnel struct {
	Device         string // tunl0
	Underlay       string // eth0
	Local          netip.Addr
	Address        netip.Addr // tunl0's own address
	MTU            int
	Implementation topology.IPIPImplementation
}

// Speaker is a node's BGP speaker.
type Speaker struct {
	ASN       uint32
	RouterID  netip.Addr
	Listen    netip.Addr
	Peers     []Peer
	Announce  []netip.Prefix // own blocks; next hop self
	Accept    netip.Prefix   // only prefixes inside are imported into the kernel
	ClusterID netip.Addr     // route reflectors only
	// Tunnel, if set, is the device that learnt routes go through, onlink,
	// towards next hops that TunnelFor selects.
	Tunnel *SpeakerTunnel
	// InstallSrc, if valid, is the preferred source of learnt routes.
	InstallSrc netip.Addr
}

// SpeakerTunnel says which learnt routes are encapsulated.
type SpeakerTunnel struct {
	Device string
	Policy topology.IPIPPolicy
	// LocalSubnet is the node's own segment: next hops inside are reached
	// without the tunnel when the policy is cross-subnet.
	LocalSubnet netip.Prefix
}

// Peer is one BGP neighbour, of the same AS unless it is external.
type Peer struct {
	Name            string
	Address         netip.Addr
	ASN             uint32
	ReflectorClient bool // we reflect for it (RFC 4456)
	Passive         bool // wait for it to connect: one side of each pair does
	External        bool // not the lab's own: it may be down, and nothing waits for it
}

// RuleSet is one owner's share of a node's iptables rules: chains that belong
// to it alone, and jumps that it needs in built-in chains; or its nftables table.
type RuleSet struct {
	Owner  string // flannel | kube-proxy | slipway
	Tables []RuleTable
	NFT    *NFTable // nil: none
}

// Size is the number of rules, with those of sets and maps counted by element.
func (s RuleSet) Size() int {
	n := 0
	for _, t := range s.Tables {
		n += len(t.Rules) + len(t.Jumps)
	}
	if s.NFT != nil {
		n += s.NFT.Size()
	}
	return n
}

// RuleTable is a rule set's share of one table.
type RuleTable struct {
	Name string // nat | filter | mangle | raw
	// Chains are owned: flushed and refilled as a whole.
	Chains []string
	// Rules are lines in iptables-save form without counters, "-A CHAIN …",
	// for owned chains only.
	Rules []string
	// Jumps are rules in built-in chains, "-A POSTROUTING … -j CHAIN". Each is
	// there exactly once; Prepend ones come before everything else.
	Jumps []Jump
}

// Jump is one rule in a built-in chain.
type Jump struct {
	Rule    string
	Prepend bool
}
