package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/datapath/lease"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// Options are what the program adds to the configuration.
type Options struct {
	// Speaker is the command line that serves BGP on its standard input and
	// output (bgp.RunSpeaker).
	Speaker []string
	// Once: program the node and return, or fail; what needs a process runs no longer.
	Once bool
	// Local: [Cleanup] leaves the node's lease where it is, for a registry that goes
	// as a whole, or has gone.
	Local bool
	// Ready is called when the node has been programmed for the first time.
	Ready func()
	Log   *slog.Logger
}

const (
	// settle collects a burst of changes into one pass.
	settle = 50 * time.Millisecond
	// firstRest and lastRest bound the wait after a pass that failed.
	firstRest = 200 * time.Millisecond
	lastRest  = 10 * time.Second
	// resync is when a node is looked at though nothing was heard of it.
	resync = time.Minute
)

// registry is where the nodes find each other.
type registry interface {
	// Self is what the registry has for this node before it has said anything.
	Self(ctx context.Context) (lease.Lease, error)
	// Claim says it, and returns the lease that holds.
	Claim(ctx context.Context, l lease.Lease) (lease.Lease, error)
	// Follow tells all leases, at first and after every change, until ctx ends.
	Follow(ctx context.Context, changed func([]lease.Lease)) error
	// Release takes back what Claim said.
	Release(ctx context.Context, l lease.Lease) error
}

// agent is a running agent. What loop uses is loop's alone.
type agent struct {
	cfg      *Config
	opts     Options
	log      *slog.Logger
	registry registry
	settings func(ctx context.Context) (*topology.Cluster, error)

	ns   *netns.NS
	nl   *nl.Handle
	host *linux.Host
	lock *os.File

	woken chan struct{} // something may have changed

	mu       sync.Mutex
	leases   []lease.Lease // as last told
	followed bool          // they were told at all
	claimed  bool          // nobody has contradicted our lease since

	cluster *topology.Cluster // with the registry's settings; changed by loop alone
	own     lease.Lease       // likewise

	processes processes
	ipip      topology.IPIPImplementation // what "auto" is here; empty: not tried yet

	dev   device
	said  []string // why leases are not followed, as last logged
	ready bool
}

// Run keeps the node in its network until ctx ends, and leaves the kernel as it
// is then. The node is the namespace that the process is in.
func Run(ctx context.Context, cfg *Config, o Options) error {
	a, err := open(cfg, o)
	if err != nil {
		return err
	}
	defer a.close()
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.runUnder(ctx)
	g.Go(func() error { return a.registry.Follow(ctx, a.told) })
	g.Go(func() error { return a.watch(ctx) })
	g.Go(func() error {
		defer stop()
		return a.loop(ctx)
	})
	err = g.Wait()
	a.processes.await()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// told takes the registry's leases.
func (a *agent) told(leases []lease.Lease) {
	a.mu.Lock()
	a.leases, a.followed = a.named(leases), true
	i := slices.IndexFunc(a.leases, func(l lease.Lease) bool { return l.Node == a.cfg.Node })
	a.claimed = a.claimed && i >= 0 && a.leases[i].Equal(a.own)
	a.mu.Unlock()
	a.wake()
}

// named gives nodes that a registry does not name the cluster file's names, or
// else their addresses.
func (a *agent) named(leases []lease.Lease) []lease.Lease {
	out := slices.Clone(leases)
	for i := range out {
		l := &out[i]
		if l.Node != "" {
			continue
		}
		l.Node = l.Address.String()
		if l.Address == a.own.Address {
			l.Node = a.cfg.Node
			continue
		}
		for _, n := range a.cluster.Spec.Nodes {
			if n.Address == l.Address && n.Name != a.cfg.Node {
				l.Node = n.Name
			}
		}
	}
	return out
}

func (a *agent) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// loop makes passes: one after each burst of changes, one a minute, and again
// after a failure, at growing intervals.
func (a *agent) loop(ctx context.Context) error {
	rest := firstRest
	for {
		err := a.pass(ctx)
		wait, floor := resync, settle
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errUntold): // it will wake us
		case err != nil && a.opts.Once:
			return err
		case err != nil:
			a.log.Error("the node is not programmed as it should be", "err", err, "again", rest)
			wait, floor = rest, rest
			rest = min(2*rest, lastRest)
		default:
			rest = firstRest
			if a.opts.Once {
				return nil
			}
		}
		if err := a.pause(ctx, wait, floor); err != nil {
			return err
		}
	}
}

// pause waits for a while, or for a change, but for no less than floor.
func (a *agent) pause(ctx context.Context, wait, floor time.Duration) error {
	full := time.NewTimer(wait)
	defer full.Stop()
	woken := a.woken
	if floor >= wait {
		woken = nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-full.C:
		return nil
	case <-woken:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(floor):
	}
	select { // what came meanwhile is seen by the next pass
	case <-a.woken:
	default:
	}
	return nil
}

// errUntold is before the registry has told its leases.
var errUntold = errors.New("the registry has not told its leases yet")

// pass makes the node what the registry says that it should be.
func (a *agent) pass(ctx context.Context) error {
	if err := a.register(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	leases, followed := a.leases, a.followed
	a.mu.Unlock()
	if !followed { // else nodes that we do not know yet would be cut off
		return errUntold
	}
	network := a.cluster.Spec.Network
	usable, reasons := usable(network, a.own, leases)
	if !slices.Equal(reasons, a.said) {
		for _, r := range reasons {
			a.log.Warn("lease not followed", "reason", r)
		}
		a.said = reasons
	}
	s, err := snapshot(a.cluster, a.cfg.Node, a.dev, usable)
	if err != nil {
		return err
	}
	diff, err := a.program(ctx, s)
	for _, c := range diff {
		a.log.Info("changed", "action", c.Action, "object", c.Object, "command", c.Command)
	}
	if err != nil {
		return err
	}
	if err := a.tell(ctx, s); err != nil {
		return err
	}
	if !a.ready {
		a.ready = true
		a.log.Info("the node is in its network", "mode", network.Mode, "nodes", len(s.Nodes), "interface", a.dev.name, "address", a.own.Address)
		if a.opts.Ready != nil {
			a.opts.Ready()
		}
	}
	return nil
}

// tell tells others on the machine of the network: container runtimes last, as
// that makes the node take pods.
func (a *agent) tell(ctx context.Context, s topology.Snapshot) error {
	self, ok := s.NodeByName(a.cfg.Node)
	if !ok {
		return fmt.Errorf("node %s is not among the nodes", a.cfg.Node)
	}
	if s.Network.Mode.IsFlannel() {
		if _, err := write(a.cfg.SubnetFile, subnetEnv(s, self), 0o644); err != nil {
			return err
		}
	}
	if _, err := write(a.readyFile(), []byte(s.Network.Mode+"\n"), 0o644); err != nil {
		return err
	}
	if a.cfg.CNI.Dir == noConf {
		return nil
	}
	conf, err := confList(ctx, a.cfg.CNI, a.readyFile(), s, self)
	if err != nil {
		return err
	}
	path := filepath.Join(a.cfg.CNI.Dir, confName)
	wrote, err := write(path, conf, 0o644)
	if wrote {
		a.log.Info("told the container runtime", "file", path)
	}
	return err
}

// readyFile is there from when the node was programmed for the first time after
// the machine was started.
func (a *agent) readyFile() string { return filepath.Join(a.cfg.StateDir, "ready") }
