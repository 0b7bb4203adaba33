package flannel

import (
	"errors"
	"fmt"

	"slipway/datapath"
	"slipway/topology"
)

// hostGW routes each subnet straight to its node, which must be a neighbour.
type hostGW struct{}

// Name implements [datapath.Mode].
func (hostGW) Name() topology.ModeName { return topology.FlannelHostGW }

// Check implements [datapath.Mode]. A node behind a router cannot be a gateway.
func (hostGW) Check(s topology.Snapshot) error {
	errs := []error{check(s, 0)}
	first := ""
	for _, n := range s.Nodes {
		switch {
		case !n.InDatapath():
		case first == "":
			first = n.Segment
		case n.Segment != first:
			errs = append(errs, fmt.Errorf("%s: node %s is in segment %s and not in %s: host-gw needs all nodes in one segment",
				topology.FlannelHostGW, n.Name, n.Segment, first))
		}
	}
	return errors.Join(errs...)
}

// Plan implements [datapath.Mode]: one route per lease
// (flannel pkg/backend/hostgw/hostgw.go).
func (m hostGW) Plan(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	cfg, self, ok, err := node(s, name)
	if err != nil || !ok {
		return cfg, err
	}
	for n := range peers(s, self) {
		if n.Segment != self.Segment {
			return cfg, fmt.Errorf("plan %s for node %s: %s is in another segment", m.Name(), name, n.Name)
		}
		cfg.Routes = append(cfg.Routes, direct(n, self.Interface.Name))
	}
	return cfg, nil
}

// PlanRouter implements [datapath.Mode].
func (hostGW) PlanRouter(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	return router(s, name)
}
