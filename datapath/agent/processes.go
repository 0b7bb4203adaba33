package agent

import (
	"context"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/datapath/bpf"
	"slipway/datapath/running"
)

// program is what changes say who made them.
const program = "slipway agent"

// processes are what of the node's datapath runs in user space, one of each at
// the most. They run until the agent's context ends, and what they put into the
// kernel stays there: only one that is not wanted any more cleans up behind itself.
type processes struct {
	tunnels  running.Units[running.Tunnel]
	speakers running.Units[datapath.Speaker]
	keeper   *bgp.Keeper // of the present speaker; nil: none
}

// runUnder prepares the processes; they end with ctx.
func (a *agent) runUnder(ctx context.Context) {
	a.processes.tunnels.Object, a.processes.tunnels.By = "tunnel", program
	a.processes.tunnels.Start = func(_ string, t running.Tunnel) (*running.Unit[running.Tunnel], error) {
		tunnel, err := t.Open(a.ns, a.log) //nolint:contextcheck // opening waits for nothing; its pump runs under ctx
		if err != nil {
			return nil, err
		}
		u := &running.Unit[running.Tunnel]{Config: t, Update: func(to running.Tunnel) (bool, error) { return tunnel.Take(to), nil }}
		u.Done, u.Stop = running.RunPump(ctx, "tunnel", tunnel, func(err error) {
			a.log.Error("the tunnel ended by itself", "err", err)
			a.wake()
		}, func() {})
		return u, nil
	}
	a.processes.speakers.Object, a.processes.speakers.By = "bgp", program
	a.processes.speakers.Start = func(_ string, s datapath.Speaker) (*running.Unit[datapath.Speaker], error) {
		k, err := bgp.Keep(ctx, s, func() (*bgp.Process, error) {
			return bgp.Start(ctx, a.ns, a.opts.Speaker, nil, a.log)
		}, func(err error) { a.log.Error("the BGP speaker ended by itself", "err", err) })
		if err != nil {
			return nil, err
		}
		a.processes.keeper = k
		return &running.Unit[datapath.Speaker]{Config: s, Update: k.Take, Stop: k.Stop}, nil
	}
}

// await returns when all have ended, after the context that they run under.
func (p *processes) await() {
	for _, key := range p.tunnels.Keys() {
		<-p.tunnels.Get(key).Done
	}
	if p.keeper != nil {
		<-p.keeper.Process().Done()
	}
}

// setProcesses makes what runs what the configuration asks for.
func (a *agent) setProcesses(ctx context.Context, cfg datapath.NodeConfig) (datapath.Diff, error) {
	tunnels := map[string]running.Tunnel{}
	if t := running.TunnelOf(cfg); t != nil {
		tunnels[cfg.Node] = *t
	}
	diff, err := a.processes.tunnels.Set(ctx, tunnels)
	if err != nil {
		return diff, err
	}
	speakers := map[string]datapath.Speaker{}
	if cfg.BGP != nil {
		speakers[cfg.Node] = *cfg.BGP
	}
	did, err := a.processes.speakers.Set(ctx, speakers)
	return append(diff, did...), err
}

// setPrograms loads eBPF programs where they are what encapsulates, and takes
// them off where they are not.
func (a *agent) setPrograms(cfg datapath.NodeConfig) (datapath.Diff, error) {
	var diff datapath.Diff
	for _, p := range bpf.ProgramsOf(a.ns, cfg, a.dev.name) {
		action, needed, err := p.Audit()
		if err == nil && needed {
			err = p.Follow(action)
		}
		if err != nil {
			return diff, err
		}
		if needed {
			diff = append(diff, datapath.Change{Node: cfg.Node, Action: action, Object: "tunnel", Command: p.Command})
		}
	}
	return diff, nil
}
