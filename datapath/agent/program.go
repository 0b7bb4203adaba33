package agent

import (
	"context"
	"fmt"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/modes"
	"slipway/topology"
)

// plan is everything that the node has to hold and run. Pods are the CNI
// plugin's affair.
func (a *agent) plan(s topology.Snapshot) (datapath.NodeConfig, error) {
	mode, err := modes.ByName(s.Network.Mode)
	if err != nil {
		return datapath.NodeConfig{}, err
	}
	if err := a.resolve(&s.Network); err != nil {
		return datapath.NodeConfig{}, err
	}
	if err := mode.Check(s); err != nil {
		return datapath.NodeConfig{}, err
	}
	cfg, err := mode.Plan(s, a.cfg.Node)
	if err != nil {
		return cfg, fmt.Errorf("plan: %w", err)
	}
	cfg.ForeignChains = a.cfg.ForeignChains
	return cfg, nil
}

// resolve settles what "auto" means on this kernel, once, as trying it out loads
// programs.
func (a *agent) resolve(n *topology.Network) error {
	switch n.Mode {
	case topology.CalicoIPIP:
		if a.ipip == "" {
			impl, reason, err := bpf.ChooseIPIP(n.IPIP.Implementation)
			if err != nil {
				return err
			}
			a.log.Info("IPIP", "implementation", impl, "reason", reason)
			a.ipip = impl
		}
		n.IPIP.Implementation = a.ipip
	case topology.FlannelUDP:
		if n.UDP.Implementation == topology.UDPeBPF {
			return bpf.ProbeUDP()
		}
	}
	return nil
}

// program makes the node what the mode plans: the kernel, programs in it, and
// what runs beside it.
func (a *agent) program(ctx context.Context, s topology.Snapshot) (datapath.Diff, error) {
	cfg, err := a.plan(s)
	if err != nil {
		return nil, err
	}
	diff, err := a.host.Apply(ctx, cfg)
	if err != nil {
		return diff, err
	}
	did, err := a.setPrograms(cfg)
	if diff = append(diff, did...); err != nil {
		return diff, err
	}
	did, err = a.setProcesses(ctx, cfg)
	return append(diff, did...), err
}
