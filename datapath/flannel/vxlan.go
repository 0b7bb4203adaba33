package flannel

import (
	"errors"
	"fmt"
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// vxlan gives each node a VTEP and tells it statically where the others are
// (RFC 7348, without learning).
type vxlan struct{}

// Name implements [datapath.Mode].
func (vxlan) Name() topology.ModeName { return topology.FlannelVXLAN }

// Check implements [datapath.Mode].
func (vxlan) Check(s topology.Snapshot) error {
	errs := []error{check(s, topology.OverheadVXLAN)}
	for _, n := range s.Nodes {
		if n.InDatapath() && n.VTEPMAC == "" {
			errs = append(errs, fmt.Errorf("%s: node %s has no VTEP MAC", s.Network.Mode, n.Name))
		}
	}
	return errors.Join(errs...)
}

// Plan implements [datapath.Mode]: per lease one permanent neighbour, one FDB
// entry and one onlink route (flannel pkg/backend/vxlan/vxlan_network.go,
// handleSubnetEvents); with direct routing a plain route inside the segment.
func (vxlan) Plan(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	cfg, self, ok, err := node(s, name)
	if err != nil || !ok {
		return cfg, err
	}
	dev := fmt.Sprintf("flannel.%d", s.Network.VXLAN.VNI)
	cfg.Links = append(cfg.Links, datapath.Link{
		Name: dev, Kind: datapath.VXLAN, MTU: int(s.Network.MTU), MAC: self.VTEPMAC,
		Addresses: []netip.Prefix{netip.PrefixFrom(self.PodCIDR.Addr(), 32)},
		VXLAN: &datapath.VXLANAttrs{
			VNI: s.Network.VXLAN.VNI, Port: s.Network.VXLAN.Port,
			Local: self.Interface.Prefix.Addr(), Device: self.Interface.Name,
		},
	})
	for n := range peers(s, self) {
		if s.Network.VXLAN.DirectRouting && n.Segment == self.Segment {
			cfg.Routes = append(cfg.Routes, direct(n, self.Interface.Name))
			continue
		}
		vtep := n.PodCIDR.Addr()
		cfg.Neighbors = append(cfg.Neighbors, datapath.Neighbor{Dev: dev, Address: vtep, MAC: n.VTEPMAC})
		cfg.FDB = append(cfg.FDB, datapath.FDBEntry{Dev: dev, MAC: n.VTEPMAC, Dst: n.Interface.Prefix.Addr()})
		cfg.Routes = append(cfg.Routes, datapath.Route{Dst: n.PodCIDR, Via: vtep, Dev: dev, Onlink: true, Protocol: datapath.ProtoBoot})
	}
	return cfg, nil
}

// PlanRouter implements [datapath.Mode].
func (vxlan) PlanRouter(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	return router(s, name)
}
