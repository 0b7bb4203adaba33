package lab

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/linux"
	"slipway/topology"
)

// applyNodes makes every node's and router's kernel equal to its configuration.
func (b *box) applyNodes(ctx context.Context, configs []datapath.NodeConfig) (datapath.Diff, error) {
	diffs := make([]datapath.Diff, len(configs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, cfg := range configs {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			diffs[i], err = b.applyNode(ctx, cfg)
			return err
		})
	}
	err := g.Wait()
	var diff datapath.Diff
	for _, d := range diffs {
		diff = append(diff, d...)
	}
	return diff, err
}

func (b *box) applyNode(ctx context.Context, cfg datapath.NodeConfig) (datapath.Diff, error) {
	h, err := b.openHost(cfg.Node)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	diff, err := h.Apply(ctx, cfg)
	if err != nil {
		return diff, err
	}
	did, err := b.applyIPIP(cfg)
	return append(diff, did...), err
}

func (b *box) openHost(node string) (*linux.Host, error) {
	p, err := b.machinePlace(NSOfMachine(b.lab, node))
	if err != nil {
		return nil, err
	}
	return linux.Open(p.ns, linux.Options{LockFile: filesOf(b.lab).xtables(node), MemoFile: filesOf(b.lab).rules(node)})
}

// applyIPIP attaches the eBPF programs where they are what encapsulates, and
// takes them off where they are not.
func (b *box) applyIPIP(cfg datapath.NodeConfig) (datapath.Diff, error) {
	diff, err := b.auditIPIP(cfg)
	if err != nil || len(diff) == 0 {
		return nil, err
	}
	p, err := b.machinePlace(NSOfMachine(b.lab, cfg.Node))
	if err != nil {
		return nil, err
	}
	if diff[0].Action == datapath.Remove {
		err = bpf.DetachIPIP(p.ns, formerIPIP)
	} else {
		err = bpf.AttachIPIP(p.ns, *cfg.IPIP)
	}
	if err != nil {
		return nil, fmt.Errorf("node %s: ipip: %w", cfg.Node, err)
	}
	return diff, nil
}

// formerIPIP is where programs may be that a node no longer wants. The one on
// the underlay device outlives tunl0.
var formerIPIP = datapath.IPIPTunnel{Device: "tunl0", Underlay: "eth0"}

// auditIPIP says whether the eBPF programs have to come or go.
func (b *box) auditIPIP(cfg datapath.NodeConfig) (datapath.Diff, error) {
	p, err := b.machinePlace(NSOfMachine(b.lab, cfg.Node))
	if err != nil {
		return nil, err
	}
	if cfg.IPIP == nil || cfg.IPIP.Implementation != topology.IPIPeBPF {
		left, err := bpf.IPIPLeft(p.ns, formerIPIP)
		if err != nil || !left {
			return nil, err
		}
		return ipipChange(cfg.Node, datapath.Remove), nil
	}
	on, err := bpf.IPIPAttached(p.ns, *cfg.IPIP)
	if err != nil {
		return nil, fmt.Errorf("node %s: ipip: %w", cfg.Node, err)
	}
	if on {
		return nil, nil
	}
	return ipipChange(cfg.Node, datapath.Add), nil
}

func ipipChange(node string, a datapath.ChangeAction) datapath.Diff {
	return datapath.Diff{{Node: node, Action: a, Object: "tunnel", Command: "tc filter: eBPF IPIP encapsulation on tunl0, decapsulation on eth0"}}
}

// audit reads every node back and returns what still separates it from its
// configuration: nothing, if the lab is what it should be.
func (b *box) audit(ctx context.Context, configs []datapath.NodeConfig) (datapath.Diff, error) {
	var diff datapath.Diff
	for _, cfg := range configs {
		d, err := b.auditNode(ctx, cfg)
		if err != nil {
			return diff, err
		}
		diff = append(diff, d...)
	}
	return diff, nil
}

func (b *box) auditNode(ctx context.Context, cfg datapath.NodeConfig) (datapath.Diff, error) {
	h, err := b.openHost(cfg.Node)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	diff, err := h.Diff(ctx, cfg)
	if err != nil {
		return diff, err
	}
	ipip, err := b.auditIPIP(cfg)
	return append(diff, ipip...), err
}
