package linux

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"slipway/datapath"
)

// Names of what is ours. The pods' host ends are named by the planners
// (packages flannel and calico, HostIf).
var (
	ownedLink  = regexp.MustCompile(`^(flannel\.?[0-9]+|cni0|tunl0)$`)
	bridgedPod = regexp.MustCompile(`^veth[0-9a-f]{8}$`)
	routedPod  = regexp.MustCompile(`^cali[0-9a-f]{11}$`)
)

// podBridge is the bridge of the flannel modes.
const podBridge = "cni0"

// podGateway is what calico pods have for a gateway.
var podGateway = netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, 1, 1}), 32)

// isPodPort reports whether a link is the host end of a pod. Container engines
// name their veths alike, so one in another bridge is none.
func isPodPort(l datapath.LinkState) bool {
	if l.Type != "veth" {
		return false
	}
	return routedPod.MatchString(l.Name) || bridgedPod.MatchString(l.Name) && (l.Master == "" || l.Master == podBridge)
}

// isPodRoute reports whether a route is the host route of a calico pod.
func isPodRoute(r datapath.Route) bool {
	return r.Dst.IsSingleIP() && routedPod.MatchString(r.Dev)
}

// ownsRoute reports whether an unwanted route has to go.
func ownsRoute(cfg datapath.NodeConfig, r datapath.Route) bool {
	switch {
	case r.Protocol == datapath.ProtoKernel || isPodRoute(r):
		return false
	case r.Protocol == datapath.ProtoBird && r.Type == datapath.Unicast && cfg.BGP != nil:
		return false // learnt
	case r.Protocol == datapath.ProtoBird || ownedLink.MatchString(r.Dev):
		return true
	case r.Dst == podGateway:
		return r.Protocol == datapath.ProtoStatic
	default:
		return cfg.PodRange.IsValid() && cfg.PodRange.Bits() <= r.Dst.Bits() && cfg.PodRange.Contains(r.Dst.Addr())
	}
}

// ownsNeighbor reports whether an unwanted permanent neighbour has to go. Those
// behind the pods' bridge belong to the pods.
func ownsNeighbor(n datapath.Neighbor) bool {
	return ownedLink.MatchString(n.Dev) && n.Dev != podBridge
}

// chainPrefixes begin the names of owned chains.
var chainPrefixes = []string{"FLANNEL-", "cali-", "KUBE-"}

// kubeletChains begin like kube-proxy's but are the kubelet's alone
// (kubernetes pkg/kubelet/kubelet_network_linux.go). KUBE-FIREWALL, which both
// make, counts as kube-proxy's; on a node with a kubelet it is one for
// NodeConfig.ForeignChains.
var kubeletChains = []string{"KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"}

// ownsChain reports whether a chain that no rule set has is ours to remove.
func ownsChain(cfg datapath.NodeConfig, chain string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(chain, prefix) }
	return slices.ContainsFunc(chainPrefixes, begins) &&
		!slices.Contains(kubeletChains, chain) && !slices.ContainsFunc(cfg.ForeignChains, begins)
}

// OwnsLink reports whether a device of that name is one that Apply makes and
// removes.
func OwnsLink(name string) bool { return ownedLink.MatchString(name) }
