// Package flannel plans the three flannel modes: what flanneld, its bridge CNI
// configuration and its iptables rules leave in a node's kernel. It is pure;
// each mode is one file and one entry of [Modes].
package flannel

import (
	"crypto/sha1" //nolint:gosec // a name, not a secret
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// Modes are the flannel modes.
func Modes() []datapath.Mode { return []datapath.Mode{udp{}, vxlan{}, hostGW{}} }

// Bridge is the bridge that a node's pods are plugged into: the cni plugin's
// default name for flannel (flannel Documentation/kube-flannel.yml, cni-conf).
const Bridge = "cni0"

// HostIf is the host end of a pod's veth: "veth" and eight hex digits, like the
// CNI plugins' (plugins pkg/ip/link_linux.go, RandomVethName), but derived from
// the pod's "namespace/name" so that the same pod always gets the same one.
func HostIf(pod string) string {
	sum := sha1.Sum([]byte(pod)) //nolint:gosec // a name, not a secret
	return "veth" + hex.EncodeToString(sum[:4])
}

// node begins the plan of a node with what all flannel modes share: forwarding,
// the bridge, the pods' ports and the rules. ok is false for a node that
// carries no pods, whose plan is then complete.
func node(s topology.Snapshot, name string) (cfg datapath.NodeConfig, self topology.NodeState, ok bool, err error) {
	self, found := s.NodeByName(name)
	if !found {
		return cfg, self, false, fmt.Errorf("plan %s for node %s: no such node", s.Network.Mode, name)
	}
	cfg = datapath.NodeConfig{Node: name, PodRange: s.Network.PodCIDR}
	if !self.InDatapath() {
		return cfg, self, false, nil
	}
	cfg.Sysctls = sysctls()
	cfg.Links = []datapath.Link{bridge(self, int(s.Network.MTU))}
	cfg.RuleSets = []datapath.RuleSet{rules(s.Network.PodCIDR, self.PodCIDR)}
	for _, p := range s.PodsOn(name) {
		cfg.PodPorts = append(cfg.PodPorts, port(p, self, int(s.Network.MTU)))
	}
	return cfg, self, true, nil
}

// router plans an underlay router: flannel asks nothing of one but forwarding.
func router(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	for _, r := range s.Routers {
		if r.Name == name {
			return datapath.NodeConfig{
				Node: name, PodRange: s.Network.PodCIDR,
				Sysctls: []datapath.Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}},
			}, nil
		}
	}
	return datapath.NodeConfig{}, fmt.Errorf("plan %s for router %s: no such router", s.Network.Mode, name)
}

// sysctls are what flannel and kube-proxy require of a node. The rp_filter
// values are the kernel's own defaults; they are stated because a new namespace
// takes over its host's (net/ipv4/devinet.c, devinet_init_net). Bridged frames
// must pass iptables: else the answer of a service's endpoint to a client on
// the same bridge would not be translated back.
func sysctls() []datapath.Sysctl {
	return []datapath.Sysctl{
		{Key: "net/ipv4/ip_forward", Value: "1"},
		{Key: "net/ipv4/conf/all/rp_filter", Value: "0"},
		{Key: "net/ipv4/conf/default/rp_filter", Value: "0"},
		{Key: "net/bridge/bridge-nf-call-iptables", Value: "1"},
	}
}

// bridge is cni0. Its MAC is fixed, as the CNI bridge plugin fixes it, because
// a bridge otherwise takes its ports' lowest one and changes with them
// (plugins plugins/main/bridge/bridge.go, ensureAddr).
func bridge(self topology.NodeState, mtu int) datapath.Link {
	gw := self.PodCIDR.Addr().Next()
	return datapath.Link{
		Name: Bridge, Kind: datapath.Bridge, MTU: mtu, MAC: macOf(gw), Hairpin: true,
		Addresses: []netip.Prefix{netip.PrefixFrom(gw, self.PodCIDR.Bits())},
	}
}

// macOf makes a MAC from an IPv4 address with the CNI project's private prefix
// (plugins pkg/utils/hwaddr, PrivateMACPrefix 0a:58).
func macOf(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("0a:58:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

func port(p topology.Pod, self topology.NodeState, mtu int) datapath.PodPort {
	return datapath.PodPort{
		Pod: p.Key(), HostIf: HostIf(p.Key()), ContainerIf: "eth0", ContainerMAC: p.MAC,
		Address: netip.PrefixFrom(p.Address, self.PodCIDR.Bits()), Gateway: self.PodCIDR.Addr().Next(),
		Bridge: Bridge, Hairpin: true, MTU: mtu,
	}
}

// peers yields the other nodes that have a lease.
func peers(s topology.Snapshot, self topology.NodeState) iter.Seq[topology.NodeState] {
	return func(yield func(topology.NodeState) bool) {
		for _, n := range s.Nodes {
			if n.Name != self.Name && n.InDatapath() && !yield(n) {
				return
			}
		}
	}
}

// check is what all flannel modes ask of a snapshot: a lease for every node,
// and an underlay that carries the packets with overhead bytes added.
func check(s topology.Snapshot, overhead int) error {
	var errs []error
	for _, n := range s.Nodes {
		if !n.InDatapath() {
			continue
		}
		if !n.PodCIDR.IsValid() {
			errs = append(errs, fmt.Errorf("%s: node %s has no pod subnet", s.Network.Mode, n.Name))
		}
		seg, ok := s.SegmentByName(n.Segment)
		if need := int(s.Network.MTU) + overhead; ok && need > seg.MTU {
			errs = append(errs, fmt.Errorf("%s: pod MTU %d and %d bytes of encapsulation do not fit segment %s's MTU %d (node %s)",
				s.Network.Mode, s.Network.MTU, overhead, seg.Name, seg.MTU, n.Name))
		}
	}
	return errors.Join(errs...)
}

// direct is the plain route to a node's subnet, for nodes in one segment. Its
// protocol is boot, as routes have that flanneld adds (pkg/backend/route_network.go).
func direct(to topology.NodeState, dev string) datapath.Route {
	return datapath.Route{Dst: to.PodCIDR, Via: to.Interface.Prefix.Addr(), Dev: dev, Protocol: datapath.ProtoBoot}
}
