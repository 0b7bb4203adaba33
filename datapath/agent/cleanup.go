package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"slipway/datapath"
	"slipway/datapath/lease"
	"slipway/internal/nl"
)

// Cleanup removes what agents have made on this node: first what draws pods to
// it, then its lease, then the kernel's state. Interfaces of pods that are still
// plugged in are left to their container runtime. It goes on after a failure.
func Cleanup(ctx context.Context, cfg *Config, o Options) (datapath.Diff, error) {
	a, err := open(cfg, o)
	if err != nil {
		return nil, err
	}
	defer a.close()
	errs := []error{remove(filepath.Join(cfg.CNI.Dir, confName), a.readyFile(), cfg.SubnetFile)}
	if !o.Local {
		patient, cancel := context.WithTimeout(ctx, releasePatience)
		defer cancel()
		if err := a.release(patient); err != nil {
			errs = append(errs, fmt.Errorf("release the lease: %w", err))
		}
	}
	nothing := datapath.NodeConfig{Node: cfg.Node, PodRange: a.cluster.Spec.Network.PodCIDR, ForeignChains: cfg.ForeignChains}
	diff, err := a.host.Apply(ctx, nothing)
	errs = append(errs, err)
	links, err := nl.Dump(a.nl.LinkList)
	errs = append(errs, err)
	for _, l := range links { // the underlay device may be another by now
		a.dev.name = l.Attrs().Name
		did, err := a.setPrograms(nothing)
		diff, errs = append(diff, did...), append(errs, err)
	}
	errs = append(errs, remove(filepath.Join(cfg.StateDir, "rules"), filepath.Join(cfg.StateDir, "lock")))
	return diff, errors.Join(errs...)
}

// releasePatience is how long a registry may take that may be gone already.
const releasePatience = 10 * time.Second

// release takes the node's lease back. A node that was never planned has none.
func (a *agent) release(ctx context.Context) error {
	self, err := a.registry.Self(ctx)
	if errors.Is(err, lease.ErrUnplanned) {
		return nil
	}
	if err != nil {
		return err
	}
	own, _, err := a.want(self)
	if err != nil {
		return err
	}
	return a.registry.Release(ctx, own)
}
