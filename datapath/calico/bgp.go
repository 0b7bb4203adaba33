package calico

import (
	"slipway/datapath"
	"slipway/topology"
)

// bgp routes pods' packets bare, by routes learnt from the other nodes.
type bgp struct{}

// Name implements [datapath.Mode].
func (bgp) Name() topology.ModeName { return topology.CalicoBGP }

// Check implements [datapath.Mode].
func (bgp) Check(s topology.Snapshot) error { return check(s, 0) }

// Plan implements [datapath.Mode].
func (bgp) Plan(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	cfg, _, ok, err := node(s, name)
	if err != nil || !ok {
		return cfg, err
	}
	cfg.RuleSets = []datapath.RuleSet{rules(s.Network.PodCIDR, "")}
	return cfg, nil
}

// PlanRouter implements [datapath.Mode].
func (bgp) PlanRouter(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	return router(s, name)
}
