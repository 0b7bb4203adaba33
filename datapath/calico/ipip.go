package calico

import (
	"errors"
	"fmt"
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// tunnelDevice is the device that the kernel's ipip module makes in every
// namespace and that felix uses (felix dataplane/linux/ipip_mgr.go).
const tunnelDevice = "tunl0"

// ipip is bgp with learnt routes that lead through an IP-in-IP tunnel (RFC 2003).
type ipip struct{}

// Name implements [datapath.Mode].
func (ipip) Name() topology.ModeName { return topology.CalicoIPIP }

// Check implements [datapath.Mode].
func (ipip) Check(s topology.Snapshot) error {
	errs := []error{check(s, topology.OverheadIPIP)}
	for _, n := range s.Nodes {
		if n.InDatapath() && !n.TunnelAddress.IsValid() {
			errs = append(errs, fmt.Errorf("%s: node %s has no tunnel address", s.Network.Mode, n.Name))
		}
	}
	return errors.Join(errs...)
}

// Plan implements [datapath.Mode]. The tunnel's address is in the node's own
// block, so that other nodes answer it through the tunnel.
func (ipip) Plan(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	cfg, self, ok, err := node(s, name)
	if err != nil || !ok {
		return cfg, err
	}
	mtu := int(s.Network.MTU)
	cfg.Links = []datapath.Link{{
		Name: tunnelDevice, Kind: datapath.IPIP, MTU: mtu,
		Addresses: []netip.Prefix{netip.PrefixFrom(self.TunnelAddress, 32)},
	}}
	cfg.IPIP = &datapath.IPIPTunnel{
		Device: tunnelDevice, Underlay: self.Interface.Name, Local: self.Interface.Prefix.Addr(),
		Address: self.TunnelAddress, MTU: mtu, Implementation: s.Network.IPIP.Implementation,
	}
	cfg.BGP.Tunnel = &datapath.SpeakerTunnel{
		Device: tunnelDevice, Policy: s.Network.IPIP.Policy, LocalSubnet: self.Interface.Prefix.Masked(),
	}
	cfg.RuleSets = []datapath.RuleSet{rules(s.Network.PodCIDR, tunnelDevice)}
	return cfg, nil
}

// PlanRouter implements [datapath.Mode].
func (ipip) PlanRouter(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	return router(s, name)
}
