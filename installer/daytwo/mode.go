package daytwo

import (
	"context"
	"slices"

	"slipway/installer"
	"slipway/installer/cluster"
)

// SwitchMode moves the cluster to another mode of its pods' network. Control plane
// and services follow one host at a time; the network's agents change on all
// nodes together, as those of two modes do not reach each other; then every pod is
// plugged in again.
func (c *Cluster) SwitchMode(ctx context.Context, to cluster.Inputs) (*Result, error) {
	res := &Result{Undone: map[string][]string{}}
	if err := cluster.OnlyNetwork(c.Inputs, to); err != nil {
		return nil, &RefusedError{err}
	}
	if err := c.reachable(ctx, nodes(to)); err != nil {
		return nil, &RefusedError{err}
	}
	before, err := cluster.Plan(c.Inputs)
	if err != nil {
		return nil, err
	}
	if _, err := to.PKI.Ensure(cluster.Certificates(to)); err != nil {
		return nil, err
	}
	after, err := cluster.Plan(to)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(after.Phases, cluster.IsNetwork)
	if at < 0 { // nobody's agent is installed: pods are not ours to plug in
		return res, c.roll(ctx, to, after)
	}
	if err := c.roll(ctx, to, installer.Plan{Phases: after.Phases[:at]}); err != nil {
		return res, err
	}
	// The old agent goes before the new one comes.
	if err := c.retire(ctx, to, before, after, res); err != nil {
		return res, err
	}
	sandboxes, err := cluster.Sandboxes(to, string(to.Cluster.Spec.Network.Mode))
	if err != nil {
		return res, err
	}
	rest := append([]installer.Phase{after.Phases[at], sandboxes}, after.Phases[at+1:]...)
	return res, c.engine().Apply(ctx, installer.Plan{Phases: rest})
}
