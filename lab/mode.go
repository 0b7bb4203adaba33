package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/topology"
)

// ModeResult is what switching the datapath of a running lab did.
type ModeResult struct {
	*Result
	From topology.ModeName `json:"from"`
	// Window is the gap that clients saw; nil if the lab has no service.
	Window *Window `json:"window,omitempty"`
	// Leftovers are what the nodes' kernels still hold of the old mode, or lack
	// of the new one, when all is said to be done. There should be none.
	Leftovers datapath.Diff `json:"leftovers"`
}

// probePatience is how long a prober may wait for service before and after.
const probePatience = 5 * time.Second

// SwitchMode moves a running lab to another datapath mode while a client keeps
// connecting to a service, and reads every node back afterwards. then, unless it
// is nil, is what else there is to do before the service can answer again.
func SwitchMode(ctx context.Context, name string, mode topology.ModeName, p Progress, then func() error) (res *ModeResult, err error) {
	st, err := Settled(ctx, name)
	if err != nil {
		return nil, err
	}
	if st.Snapshot == nil || !st.Complete {
		return nil, fmt.Errorf("lab %s is only partly up (`slipway up` repairs it)", name)
	}
	res = &ModeResult{From: st.Snapshot.Network.Mode, Leftovers: datapath.Diff{}}
	probe, err := startProber(ctx, name, st.Snapshot)
	if errors.Is(err, netns.ErrNotExist) {
		err = nil // the client is gone: the change repairs it, or finds that the lab is gone too
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if probe != nil {
		wait, cancel := context.WithTimeout(ctx, probePatience)
		// A lab whose service does not answer may be switched all the same;
		// the window then says that every attempt was lost.
		_ = probe.waitSuccess(wait, began)
		cancel()
	}
	res.Result, err = Change(ctx, name, p, func(st *State) error { return setMode(st, mode) })
	if err == nil && then != nil {
		err = then()
	}
	if probe != nil {
		wait, cancel := context.WithTimeout(ctx, probePatience)
		_ = probe.waitSuccess(wait, time.Now()) // see above
		cancel()
		res.Window = probe.finish()
	}
	if err != nil {
		return res, err
	}
	res.Leftovers, err = auditLab(ctx, name)
	return res, err
}

func setMode(st *State, mode topology.ModeName) error {
	c := *st.Cluster
	c.Spec.Network.Mode = mode
	c.Spec.Network.MTU = 0 // auto: each mode has its own
	if err := topology.Validate(&c).Err(); err != nil {
		return fmt.Errorf("mode %s: %w", mode, err)
	}
	st.Cluster = &c
	return nil
}

// settlePatience is how long agents in the nodes may take to follow a change.
const settlePatience = 20 * time.Second

// auditLab compares every node's kernel with the lab's plan. Agents, and the pods
// that kubelets plug in again, are waited for a while.
func auditLab(ctx context.Context, name string) (diff datapath.Diff, err error) {
	wait, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	for {
		diff, agents, err := auditOnce(ctx, name)
		if err != nil || !agents || len(diff) == 0 {
			return diff, err
		}
		select {
		case <-wait.Done():
			return diff, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// auditOnce reports too whether agents program the lab's nodes.
func auditOnce(ctx context.Context, name string) (diff datapath.Diff, agents bool, err error) {
	st, err := ReadState(name)
	if err != nil {
		return nil, false, err
	}
	b, err := openExisting(ctx, name)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	p, err := makePlan(st.Snapshot)
	if err != nil {
		return nil, false, err
	}
	diff, err = b.audit(ctx, p.every())
	return diff, p.agents(), err
}
