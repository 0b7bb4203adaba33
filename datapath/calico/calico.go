// Package calico plans the two calico modes: what felix, confd and bird leave
// in a node's kernel and tell its BGP peers. It is pure; each mode is one file
// and one entry of [Modes].
package calico

import (
	"crypto/sha1" //nolint:gosec // a name, not a secret
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// Modes are the calico modes.
func Modes() []datapath.Mode { return []datapath.Mode{bgp{}, ipip{}} }

// HostMAC is the MAC of every pod's host end (felix
// dataplane/linux/endpoint_mgr.go and cni-plugin/pkg/dataplane/linux).
const HostMAC = "ee:ee:ee:ee:ee:ee"

// Gateway is every pod's next hop. Nobody has the address: the host end answers
// for it by proxy ARP (cni-plugin/pkg/dataplane/linux/dataplane_linux.go).
var Gateway = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// HostIf is the host end of a pod's veth, named like calico's: "cali" and the
// first eleven hex digits of the SHA-1 of "namespace.name"
// (libcalico-go/lib/names, cni-plugin/internal/pkg/utils). The pod is given as
// "namespace/name"; neither part can contain a slash.
func HostIf(pod string) string {
	sum := sha1.Sum([]byte(strings.Replace(pod, "/", ".", 1))) //nolint:gosec // a name, not a secret
	return "cali" + hex.EncodeToString(sum[:])[:11]
}

// node begins the plan of a node with what both modes share: forwarding, the
// blackholes of its blocks, the pods' ports and the BGP speaker. ok is false
// for a node that carries no pods, whose plan is then complete.
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
	cfg.Routes = []datapath.Route{gatewayCover(self.Interface.Name)}
	for _, b := range self.Blocks {
		cfg.Routes = append(cfg.Routes, datapath.Route{Dst: b, Type: datapath.Blackhole, Protocol: datapath.ProtoBird})
	}
	for _, p := range s.PodsOn(name) {
		cfg.PodPorts = append(cfg.PodPorts, port(p, int(s.Network.MTU)))
	}
	if cfg.BGP, err = speaker(s, name); err != nil {
		return cfg, self, false, err
	}
	cfg.BGP.Announce = self.Blocks
	cfg.BGP.Accept = s.Network.PodCIDR
	return cfg, self, true, nil
}

// sysctls are what felix requires of a node. The rp_filter values are the
// kernel's own defaults; they are stated because a new namespace takes over its
// host's (net/ipv4/devinet.c, devinet_init_net). What each pod's interface
// needs is the CNI plugin's part.
func sysctls() []datapath.Sysctl {
	return []datapath.Sysctl{
		{Key: "net/ipv4/ip_forward", Value: "1"},
		{Key: "net/ipv4/conf/all/rp_filter", Value: "0"},
		{Key: "net/ipv4/conf/default/rp_filter", Value: "0"},
	}
}

// gatewayCover makes the kernel answer the pods' ARP for [Gateway]: it does so
// only if it could route there by another interface (net/ipv4/arp.c, arp_process
// and arp_fwd_proxy). A host's default route usually sees to that; a node of a
// lab has none.
func gatewayCover(dev string) datapath.Route {
	return datapath.Route{Dst: netip.PrefixFrom(Gateway, 32), Dev: dev, LinkScope: true, Protocol: datapath.ProtoStatic}
}

func port(p topology.Pod, mtu int) datapath.PodPort {
	return datapath.PodPort{
		Pod: p.Key(), HostIf: HostIf(p.Key()), ContainerIf: "eth0", HostMAC: HostMAC, ContainerMAC: p.MAC,
		Address: netip.PrefixFrom(p.Address, 32), Gateway: Gateway, MTU: mtu,
	}
}

// check is what both calico modes ask of a snapshot.
func check(s topology.Snapshot, overhead int) error {
	var errs []error
	for _, n := range s.Nodes {
		if !n.InDatapath() {
			continue
		}
		if len(n.Blocks) == 0 {
			errs = append(errs, fmt.Errorf("%s: node %s has no address block", s.Network.Mode, n.Name))
		}
		seg, ok := s.SegmentByName(n.Segment)
		if need := int(s.Network.MTU) + overhead; ok && need > seg.MTU {
			errs = append(errs, fmt.Errorf("%s: pod MTU %d and %d bytes of encapsulation do not fit segment %s's MTU %d (node %s)",
				s.Network.Mode, s.Network.MTU, overhead, seg.Name, seg.MTU, n.Name))
		}
	}
	return errors.Join(append(errs, checkReflectors(s))...)
}

// router plans an underlay router: forwarding, and a BGP speaker if it is one.
// It imports pod routes only where pods' packets reach it bare.
func router(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	for _, r := range s.Routers {
		if r.Name != name {
			continue
		}
		cfg := datapath.NodeConfig{
			Node: name, PodRange: s.Network.PodCIDR,
			Sysctls: []datapath.Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}},
		}
		if !routerSpeaks(s, name) {
			return cfg, nil
		}
		sp, err := speaker(s, name)
		if err != nil {
			return cfg, err
		}
		if s.Network.Mode == topology.CalicoBGP {
			sp.Accept = s.Network.PodCIDR
		}
		cfg.BGP = sp
		return cfg, nil
	}
	return datapath.NodeConfig{}, fmt.Errorf("plan %s for router %s: no such router", s.Network.Mode, name)
}
