package linux

import (
	"cmp"
	"fmt"
	"slices"

	"slipway/datapath"
)

// stage orders the steps: what others need comes first, the new before the old.
type stage int

const (
	stageSysctl stage = iota
	stageLink
	stageAddress
	stageNeighbor
	stageFDB
	stageRoute
	stageRules
	stageTable
	stageDropRoute
	stageDropNeighbor
	stageDropAddress
	stageDropLink
	stagePod
)

// step is one change and how to make it. Steps without run are not ours to
// make (pods), or are made together (rules).
type step struct {
	stage  stage
	change datapath.Change
	run    func(*Host) error
}

// steps is what separates a state from a configuration.
type steps struct {
	cfg  datapath.NodeConfig
	list []step
	// restore is the iptables-restore input that makes all rule changes.
	restore string
	// wantNFT is the nftables table that there shall be; nil: none.
	wantNFT *datapath.NFTable
}

func (s *steps) add(at stage, action datapath.ChangeAction, object, command, was string, run func(*Host) error) {
	s.list = append(s.list, step{stage: at, run: run, change: datapath.Change{
		Node: s.cfg.Node, Action: action, Object: object, Command: command, Was: was,
	}})
}

// compute finds the steps from st to cfg, in the order in which to make them.
func compute(cfg datapath.NodeConfig, st datapath.KernelState) (steps, error) {
	s := steps{cfg: cfg}
	s.sysctls(st)
	if err := s.links(st); err != nil {
		return s, fmt.Errorf("node %s: %w", cfg.Node, err)
	}
	s.neighbors(st)
	s.fdb(st)
	s.routes(st)
	s.rules(st)
	s.tables(st)
	s.pods(st)
	slices.SortStableFunc(s.list, func(a, b step) int { return cmp.Compare(a.stage, b.stage) })
	return s, nil
}

// Compare says what separates the state from the configuration; empty means
// equal. Rules are compared only if the state has them (RuleSave is not nil).
func Compare(cfg datapath.NodeConfig, st datapath.KernelState) datapath.Diff {
	s, err := compute(cfg, st)
	if err != nil {
		return datapath.Diff{{Node: cfg.Node, Action: datapath.Update, Object: "link", Command: "# " + err.Error()}}
	}
	var out datapath.Diff
	for _, x := range s.list {
		out = append(out, x.change)
	}
	return out
}

func (s *steps) sysctls(st datapath.KernelState) {
	have := map[string]string{}
	for _, x := range st.Sysctls {
		have[x.Key] = x.Value
	}
	for _, want := range s.cfg.Sysctls {
		if was, ok := have[want.Key]; !ok || was != want.Value {
			s.add(stageSysctl, datapath.Update, "sysctl", "sysctl -w "+want.String(), was,
				func(h *Host) error { return h.writeSysctl(want) })
		}
	}
}
