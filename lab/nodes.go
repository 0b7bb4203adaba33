package lab

import (
	"context"
	"os"

	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/lab/initd"
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
	did, err := b.applyPrograms(cfg)
	return append(diff, did...), err
}

func (b *box) openHost(node string) (*linux.Host, error) {
	p, err := b.machinePlace(NSOfMachine(b.lab, node))
	if err != nil {
		return nil, err
	}
	return linux.Open(p.ns, linux.Options{LockFile: xtablesLock(b.lab, node), MemoFile: filesOf(b.lab).rules(node)})
}

// xtablesLock is the file that everybody locks who changes a node's rules: with
// real components, that of the programs in the node.
func xtablesLock(lab, node string) string {
	f := filesOf(lab)
	inside := initd.XTablesLock(f.node(node).root())
	if _, err := os.Stat(inside); err == nil {
		return inside
	}
	return f.xtables(node)
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
	programs, err := b.auditPrograms(cfg)
	return append(diff, programs...), err
}
