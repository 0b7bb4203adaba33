package netview

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/lab/daemon"
)

// Options say how much is read of each namespace.
type Options struct {
	// Counters asks for the rules' packet counters, which takes longer.
	Counters bool
	// Conntrack are the tracked connections that are wanted.
	Conntrack []linux.ConntrackQuery
	// SkipSockets leaves out who listens.
	SkipSockets bool
}

// View is a running lab. It is read as it is asked for, each part once: what it
// returns is the lab as it was when it was first asked. Its methods may be
// called at the same time. It must be closed.
type View struct {
	// The view serves one trace: its context bounds all that is read through
	// [trace.Network], whose methods take none.
	ctx    context.Context
	st     *lab.State
	opts   Options
	places []trace.Place
	byNS   map[string]trace.Place
	hints  hints
	daemon daemonView

	mu     sync.Mutex
	spaces map[string]*space
	peers  map[string]trace.PeerEnd
	inodes map[uint64]string
	alien  map[uint64]bool // inodes that are no namespace of the lab
	notes  []string
}

var (
	_ trace.Network  = (*View)(nil)
	_ trace.Sketcher = (*View)(nil)
)

// Open prepares a view of a lab. Nothing is read yet.
func Open(ctx context.Context, st *lab.State, o Options) (*View, error) {
	if st.Snapshot == nil {
		return nil, fmt.Errorf("lab %s is only partly up", st.Lab)
	}
	targets, err := lab.Targets(st)
	if err != nil {
		return nil, err
	}
	v := &View{
		ctx: ctx, st: st, opts: o, byNS: map[string]trace.Place{}, spaces: map[string]*space{},
		peers: map[string]trace.PeerEnd{}, alien: map[uint64]bool{},
	}
	v.daemon.client = daemon.NewClient(lab.SocketPath(st.Lab))
	for _, t := range targets {
		p := trace.Place{Label: t.Label, Node: t.Node, Namespace: t.NetNS, Wire: t.Fabric(), Pod: t.Pod != nil}
		v.places = append(v.places, p)
		v.byNS[p.Namespace] = p
	}
	v.hints, err = hintsOf(st)
	return v, err
}

// Close lets go of the namespaces. What was returned stays valid, but for open
// namespaces.
func (v *View) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, s := range v.spaces {
		errs = append(errs, s.close())
	}
	v.spaces = map[string]*space{}
	v.daemon.client.Close()
	return errors.Join(errs...)
}

// Places lists the lab's namespaces: machines, the fabric, pods.
func (v *View) Places() []trace.Place { return slices.Clone(v.places) }

// Place implements [trace.Network].
func (v *View) Place(namespace string) trace.Place {
	if p, ok := v.byNS[namespace]; ok {
		return p
	}
	return trace.Place{Label: namespace, Namespace: namespace}
}

// State implements [trace.Network].
func (v *View) State(namespace string) (*datapath.NetState, error) { return v.state(v.ctx, namespace) }

func (v *View) state(ctx context.Context, namespace string) (*datapath.NetState, error) {
	s, err := v.space(namespace)
	if err != nil {
		return nil, err
	}
	return s.once(ctx, func() (*datapath.NetState, error) { return v.read(ctx, s.ns) })
}

// read collects a namespace and adds what the kernel does not know.
func (v *View) read(ctx context.Context, ns *netns.NS) (*datapath.NetState, error) {
	place := v.Place(ns.Name())
	lock, saved := lab.RuleFiles(v.st.Lab, fileName(v.st.Lab, ns.Name()))
	t, err := v.tunnelsOf(place)
	if err != nil {
		return nil, fmt.Errorf("collect %s: %w", ns.Name(), err)
	}
	h, err := linux.Open(ns, linux.Options{LockFile: lock})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	o := linux.CollectOptions{
		Counters: v.opts.Counters, SkipSockets: v.opts.SkipSockets || place.Wire, Conntrack: slices.Concat(v.opts.Conntrack, t.connections()),
	}
	if place.Node == place.Label && !place.Wire { // other places have few rules or none
		o.RuleCache = saved
	}
	st, err := h.Collect(ctx, o)
	if err != nil {
		return nil, err
	}
	v.addTunnels(ctx, ns, place.Label, t, st)
	return st, nil
}

// Sketch implements [trace.Sketcher].
func (v *View) Sketch(namespace string) (*datapath.NetState, error) {
	s, err := v.space(namespace)
	if err != nil {
		return nil, err
	}
	return s.inPart(v.ctx, func() (*datapath.NetState, error) {
		h, err := linux.Open(s.ns, linux.Options{SkipRules: true})
		if err != nil {
			return nil, err
		}
		defer h.Close()
		return h.Collect(v.ctx, linux.CollectOptions{SkipRules: true, SkipSockets: true, SkipConntrack: true})
	})
}

// workers is how many namespaces are collected at once: collecting is mostly
// the kernel's work, and two CPUs are common.
const workers = 4

// Prefetch reads namespaces at the same time, so that asking for them later is
// quick. What fails is told by State; what ctx cut short is read again.
func (v *View) Prefetch(ctx context.Context, namespaces ...string) {
	var g errgroup.Group
	g.SetLimit(workers)
	for _, n := range namespaces {
		g.Go(func() error {
			_, _ = v.state(ctx, n) // kept, and told to whoever asks
			return nil
		})
	}
	_ = g.Wait() // none fails
}

// NS is an open namespace, which stays the view's.
func (v *View) NS(namespace string) (*netns.NS, error) {
	s, err := v.space(namespace)
	if err != nil {
		return nil, err
	}
	return s.ns, nil
}

// NamespaceByInode names the lab's namespace that has an inode, as kernel events
// carry it.
func (v *View) NamespaceByInode(inode uint64) (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if name, ok := v.inodes[inode]; ok || v.alien[inode] {
		return name, ok
	}
	// Not known yet, or a namespace that was made meanwhile.
	v.inodes = map[uint64]string{}
	for _, p := range v.places {
		var st unix.Stat_t
		if err := unix.Stat(netns.Path(p.Namespace), &st); err == nil {
			v.inodes[st.Ino] = p.Namespace
		}
	}
	name, ok := v.inodes[inode]
	if !ok {
		v.alien[inode] = true
	}
	return name, ok
}

// Notes are what a reader of a trace should know of the lab, such as relayed
// wires that the packet came over.
func (v *View) Notes() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.notes)
}

func (v *View) note(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.notes, text) {
		v.notes = append(v.notes, text)
	}
}

// Recorded is everything that was read so far.
func (v *View) Recorded() *trace.Recorded {
	v.mu.Lock()
	spaces, peers, notes := maps.Clone(v.spaces), maps.Clone(v.peers), slices.Clone(v.notes)
	v.mu.Unlock()
	r := &trace.Recorded{Places: maps.Clone(v.byNS), States: map[string]*datapath.NetState{}, Passed: map[string]*datapath.NetState{}, Peers: peers, Unread: map[string]string{}, Notes: notes}
	for _, name := range ordered.Keys(spaces) {
		switch st, err := spaces[name].known(); {
		case err != nil:
			r.Unread[name] = err.Error()
		case st != nil:
			r.States[name] = st
		}
		if st := spaces[name].sketched(); st != nil {
			r.Passed[name] = st
		}
	}
	return r
}
