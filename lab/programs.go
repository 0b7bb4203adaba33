package lab

import (
	"fmt"

	"slipway/datapath"
	"slipway/datapath/bpf"
)

// underlayDevice is what a lab's nodes have.
const underlayDevice = "eth0"

// eachProgram audits a node's programs and calls do for those that are not as
// they should be.
func (b *box) eachProgram(cfg datapath.NodeConfig, do func(bpf.Programs, datapath.ChangeAction) error) (datapath.Diff, error) {
	place, err := b.machinePlace(NSOfMachine(b.lab, cfg.Node))
	if err != nil {
		return nil, err
	}
	var diff datapath.Diff
	for _, p := range bpf.ProgramsOf(place.ns, cfg, underlayDevice) {
		action, needed, err := p.Audit()
		if err == nil && needed {
			err = do(p, action)
		}
		if err != nil {
			return diff, fmt.Errorf("node %s: %s: %w", cfg.Node, p.Kind, err)
		}
		if needed {
			diff = append(diff, datapath.Change{Node: cfg.Node, Action: action, Object: "tunnel", Command: p.Command})
		}
	}
	return diff, nil
}

// applyPrograms attaches the eBPF programs where they are what encapsulates, and
// takes them off where they are not.
func (b *box) applyPrograms(cfg datapath.NodeConfig) (datapath.Diff, error) {
	return b.eachProgram(cfg, bpf.Programs.Follow)
}

// auditPrograms says which eBPF programs have to come or go.
func (b *box) auditPrograms(cfg datapath.NodeConfig) (datapath.Diff, error) {
	return b.eachProgram(cfg, func(bpf.Programs, datapath.ChangeAction) error { return nil })
}
