package topology

import "net/netip"

// Snapshot is a cluster at one moment with everything decided: the only input
// of the datapath planners. Slices are in a stable order, so that equal
// snapshots plan equally.
type Snapshot struct {
	Lab      string        `json:"lab"`
	Network  Network       `json:"network"` // MTU resolved, never zero
	Proxy    Proxy         `json:"proxy"`
	Segments []Segment     `json:"segments"`
	Routers  []RouterState `json:"routers,omitempty"`
	Nodes    []NodeState   `json:"nodes"` // in file order
	Pods     []Pod         `json:"pods"`  // by namespace, name
	Services []Service     `json:"services"`
	// Components is how much of Kubernetes really runs; empty for none.
	Components Components `json:"components,omitempty"`
	// ClusterDNS is the address of the kube-system/kube-dns service.
	ClusterDNS netip.Addr `json:"clusterDNS,omitzero"`
}

// Interface is one leg of a machine in a segment.
type Interface struct {
	Name    string       `json:"name"` // eth0, eth1 …
	Segment string       `json:"segment"`
	Prefix  netip.Prefix `json:"prefix"` // own address with the segment's length
	MAC     string       `json:"mac"`
}

// UnderlayRoute leads to another segment through a router.
type UnderlayRoute struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via"`
	Dev string       `json:"dev"`
}

// RouterState is a router with its addresses.
type RouterState struct {
	Name       string          `json:"name"`
	Interfaces []Interface     `json:"interfaces"`
	Routes     []UnderlayRoute `json:"routes,omitempty"`
}

// NodeState is a node with what allocation gave it.
type NodeState struct {
	Node
	Interface Interface       `json:"interface"`
	Routes    []UnderlayRoute `json:"routes,omitempty"`
	// PodCIDR is the node's subnet lease in the flannel modes.
	PodCIDR netip.Prefix `json:"podCIDR,omitzero"`
	// Blocks are the node's IPAM blocks (/26) in the calico modes.
	Blocks []netip.Prefix `json:"blocks,omitempty"`
	// TunnelAddress is tunl0's own address, taken from the node's first block.
	TunnelAddress netip.Addr `json:"tunnelAddress,omitzero"`
	// VTEPMAC is the MAC of flannel.1, derived from lab and node name.
	VTEPMAC string `json:"vtepMAC,omitempty"`
}

// InDatapath reports whether the node carries pods and services, as
// [Node.InDatapath] says; one without roles does.
func (n NodeState) InDatapath() bool { return len(n.Roles) == 0 || n.Node.InDatapath() }

// Zone is the node's topology zone, empty if it has none (core/v1
// LabelTopologyZone).
func (n NodeState) Zone() string { return n.Labels["topology.kubernetes.io/zone"] }

// Protocol of a port.
type Protocol string

// The protocols of Kubernetes ports.
const (
	TCPProtocol  Protocol = "TCP"
	UDPProtocol  Protocol = "UDP"
	SCTPProtocol Protocol = "SCTP"
)

// PodKind tells a user's pod from one that the lab itself serves.
type PodKind string

// Kinds of pods: declared by the user, or the lab's own cluster DNS.
const (
	PodEcho PodKind = "echo"
	PodDNS  PodKind = "dns"
)

// PodKindAnnotation on a Pod object says of which kind it is, if not an echo pod.
const PodKindAnnotation = "slipway/pod-kind"

// Pod is a placed pod with its address.
type Pod struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Node      string            `json:"node"`
	Address   netip.Addr        `json:"address"`
	MAC       string            `json:"mac"` // of eth0 in the pod
	Labels    map[string]string `json:"labels,omitempty"`
	Owner     string            `json:"owner,omitempty"` // "Deployment/nginx"; empty for a bare pod
	Ports     []ContainerPort   `json:"ports,omitempty"`
	Hostname  string            `json:"hostname,omitempty"`
	Subdomain string            `json:"subdomain,omitempty"` // for <hostname>.<subdomain> DNS names
	Kind      PodKind           `json:"kind"`
}

// Key is "namespace/name".
func (p Pod) Key() string { return p.Namespace + "/" + p.Name }

// ContainerPort is a declared port on which the lab's echo server answers.
type ContainerPort struct {
	Name     string   `json:"name,omitempty"`
	Port     int      `json:"port"`
	Protocol Protocol `json:"protocol"`
}

// ServiceType is ClusterIP, NodePort, LoadBalancer or ExternalName.
type ServiceType string

// The service types.
const (
	ClusterIP    ServiceType = "ClusterIP"
	NodePort     ServiceType = "NodePort"
	LoadBalanced ServiceType = "LoadBalancer"
	ExternalName ServiceType = "ExternalName"
)

// Service with its resolved endpoints.
type Service struct {
	Namespace string      `json:"namespace"`
	Name      string      `json:"name"`
	Type      ServiceType `json:"type"`
	// ClusterIP is invalid (the zero Addr) for headless services.
	ClusterIP           netip.Addr        `json:"clusterIP,omitzero"`
	Headless            bool              `json:"headless,omitempty"`
	ExternalIPs         []netip.Addr      `json:"externalIPs,omitempty"`
	LoadBalancerIPs     []netip.Addr      `json:"loadBalancerIPs,omitempty"`
	SourceRanges        []netip.Prefix    `json:"loadBalancerSourceRanges,omitempty"` // empty: everybody
	ExternalName        string            `json:"externalName,omitempty"`
	Selector            map[string]string `json:"selector,omitempty"`
	AffinityClientIP    bool              `json:"affinityClientIP,omitempty"`
	AffinitySeconds     int               `json:"affinitySeconds,omitempty"` // 10800 unless told
	InternalPolicyLocal bool              `json:"internalPolicyLocal,omitempty"`
	ExternalPolicyLocal bool              `json:"externalPolicyLocal,omitempty"`
	HealthCheckNodePort int               `json:"healthCheckNodePort,omitempty"`
	PublishNotReady     bool              `json:"publishNotReady,omitempty"`
	ProxyName           string            `json:"proxyName,omitempty"` // another proxy's, which kube-proxy leaves alone
	Ports               []ServicePort     `json:"ports"`
}

// Key is "namespace/name".
func (s Service) Key() string { return s.Namespace + "/" + s.Name }

// ServicePort is one port of a service with the endpoints behind it.
type ServicePort struct {
	Name       string     `json:"name,omitempty"`
	Protocol   Protocol   `json:"protocol"`
	Port       int        `json:"port"`
	NodePort   int        `json:"nodePort,omitempty"`
	TargetPort string     `json:"targetPort"` // as written: number or name
	Endpoints  []Endpoint `json:"endpoints,omitempty"`
}

// Endpoint is one address behind a service port, sorted by address, port.
type Endpoint struct {
	Address     netip.Addr `json:"address"`
	Port        int        `json:"port"`
	Node        string     `json:"node,omitempty"` // empty when not on a node of the cluster
	Pod         string     `json:"pod,omitempty"`  // "namespace/name"
	Hostname    string     `json:"hostname,omitempty"`
	Ready       bool       `json:"ready"`
	Serving     bool       `json:"serving"`
	Terminating bool       `json:"terminating,omitempty"`
	// ForZones and ForNodes are the zones and nodes that should prefer it; see
	// [Preferred].
	ForZones []string `json:"forZones,omitempty"`
	ForNodes []string `json:"forNodes,omitempty"`
}

// NodeByName finds a node.
func (s *Snapshot) NodeByName(name string) (NodeState, bool) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return NodeState{}, false
}

// SegmentByName finds a segment.
func (s *Snapshot) SegmentByName(name string) (Segment, bool) {
	for _, g := range s.Segments {
		if g.Name == name {
			return g, true
		}
	}
	return Segment{}, false
}

// PodsOn lists the pods of one node in order.
func (s *Snapshot) PodsOn(node string) []Pod {
	var out []Pod
	for _, p := range s.Pods {
		if p.Node == node {
			out = append(out, p)
		}
	}
	return out
}
