package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"slipway/datapath/lease"
	"slipway/datapath/linux"
	"slipway/internal/filelock"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// open takes hold of everything that does not need the registry to answer.
func open(cfg *Config, o Options) (_ *agent, err error) {
	a := &agent{cfg: cfg, opts: o, log: o.Log.With("node", cfg.Node), woken: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.cluster, err = cfg.loadCluster(); err != nil {
		return nil, err
	}
	if err := a.openRegistry(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	if a.lock, err = lock(filepath.Join(cfg.StateDir, "lock")); err != nil {
		return nil, err
	}
	if a.ns, err = netns.Current(); err != nil {
		return nil, err
	}
	if a.nl, err = nl.At(a.ns); err != nil {
		return nil, err
	}
	a.host, err = linux.Open(a.ns, linux.Options{HostTables: true, MemoFile: filepath.Join(cfg.StateDir, "rules")})
	return a, err
}

// lockPatience is how long an agent that was told to end may take.
const lockPatience = 5 * time.Second

// lock makes sure that one agent at a time works on a node.
func lock(path string) (*os.File, error) {
	for give := time.Now().Add(lockPatience); ; <-time.After(lockPatience / 100) {
		f, err := filelock.Try(path)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, filelock.ErrHeld):
			return nil, err
		case time.Now().After(give):
			return nil, fmt.Errorf("%w: another agent runs on this node", err)
		}
	}
}

// openRegistry opens the one that is configured.
func (a *agent) openRegistry() error {
	file := a.cluster
	if k := a.cfg.Registry.Kube; k != nil {
		r, err := lease.OpenKube(k.Kubeconfig, a.cfg.Node, file.Spec.Network.Mode.IsCalico(), a.log)
		a.registry, a.settings = r, func(context.Context) (*topology.Cluster, error) { return file, nil }
		return err
	}
	e := a.cfg.Registry.Etcd
	r, err := lease.OpenEtcd(lease.EtcdOptions{
		Endpoints: e.Endpoints, Prefix: e.Prefix, CA: e.CA, Cert: e.Cert, Key: e.Key,
		Former: formerSubnet(a.cfg.SubnetFile), Log: a.log,
	})
	a.registry, a.settings = r, func(ctx context.Context) (*topology.Cluster, error) {
		c := *file
		c.Spec.Network, err = r.Settle(ctx, c.Spec.Network, e.CreateConfig)
		return &c, err
	}
	return err
}

func (a *agent) close() {
	if a.host != nil {
		a.host.Close()
	}
	if a.nl != nil {
		a.nl.Close()
	}
	if a.ns != nil {
		_ = a.ns.Close()
	}
	if a.lock != nil {
		_ = a.lock.Close()
	}
}
