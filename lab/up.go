package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/lab/shape"
	"slipway/topology"
)

// UpOptions says what lab to bring about.
type UpOptions struct {
	Cluster *topology.Cluster
	// Objects are those of the cluster file's manifests; Manifests the files.
	Objects   *topology.Objects
	Manifests []Manifest
	CNI       CNIPath // empty: as the lab has it, in-process for a new one
	// KeepFailed leaves a new lab that could not be finished as it is, to look at.
	KeepFailed bool
	// ConvergeTimeout bounds the wait for BGP; 30 s if zero.
	ConvergeTimeout time.Duration
	Progress        Progress
}

// Progress is told how far a long command is. Calls come from one goroutine at
// a time but for Step.
type Progress interface {
	Phase(name string, total int) // total 0: not countable
	Step()
}

// Silent is a Progress that shows nothing.
type Silent struct{}

// Phase does nothing.
func (Silent) Phase(string, int) {}

// Step does nothing.
func (Silent) Step() {}

// Timing is how long one phase took.
type Timing struct {
	Phase string        `json:"phase"`
	Took  time.Duration `json:"tookNs"`
}

// Result is what a command did to a lab.
type Result struct {
	Lab     string            `json:"lab"`
	Mode    topology.ModeName `json:"mode"`
	Created bool              `json:"created"`
	Changes datapath.Diff     `json:"changes"`
	Timings []Timing          `json:"timings"`
	// Implementations says which of several ways really runs, by feature.
	Implementations map[string]string `json:"implementations,omitempty"`
	Nodes           int               `json:"nodes"`
	Pods            int               `json:"pods"`
	Services        int               `json:"services"`
	Took            time.Duration     `json:"tookNs"`
}

// Up makes the machine equal to the cluster file: it creates the lab, or
// changes only what differs. A new lab that fails or is interrupted is taken
// down again, unless told to keep it.
func Up(ctx context.Context, o UpOptions) (*Result, error) {
	name := o.Cluster.Metadata.Name
	return change(ctx, name, true, o.KeepFailed, o.Progress, func(st *State) error {
		st.Cluster, st.FromFile, st.Manifests = o.Cluster, o.Objects, o.Manifests
		if o.CNI != "" {
			st.CNI = o.CNI
		}
		return nil
	}, o.ConvergeTimeout)
}

// Change edits a running lab's state and makes the machine follow: it is how
// apply, delete and mode work.
func Change(ctx context.Context, name string, p Progress, edit func(*State) error) (*Result, error) {
	return change(ctx, name, false, true, p, edit, 0)
}

func change(ctx context.Context, name string, create, keep bool, p Progress, edit func(*State) error, converge time.Duration) (res *Result, err error) {
	if !create {
		if _, err := ReadState(name); err != nil {
			return nil, err
		}
	}
	r := &runner{ctx: ctx, progress: p, start: time.Now(), converge: converge, boot: create}
	r.result.Changes = datapath.Diff{} // an empty list in JSON, not null
	if r.progress == nil {
		r.progress = Silent{}
	}
	if r.converge == 0 {
		r.converge = 30 * time.Second
	}
	b, fresh, err := openBox(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if fresh && !create { // a `down` came first
		return nil, errors.Join(fmt.Errorf("lab %q: %w", name, ErrNoLab), b.undoNew(ctx))
	}
	if fresh && !keep {
		defer func() {
			if err != nil {
				err = errors.Join(err, b.undoNew(ctx))
			}
		}()
	}
	if err := prepareNetNSDir(ctx); err != nil {
		return nil, err
	}
	res, err = r.run(b, edit)
	if err != nil {
		return res, err
	}
	res.Created = fresh
	return res, nil
}

// ErrCleanUp reports that what a failed or interrupted command made could not
// all be removed again.
var ErrCleanUp = errors.New("clean up")

// undoNew takes down what was made of a lab that could not be finished; it must
// work although the command's own context has ended.
func (b *box) undoNew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
	defer cancel()
	if _, err := b.down(ctx); err != nil {
		return fmt.Errorf("%w: %w (run `slipway down %s`)", ErrCleanUp, err, b.lab)
	}
	return nil
}

// runner carries one change through its phases.
type runner struct {
	ctx      context.Context
	progress Progress
	start    time.Time
	converge time.Duration
	boot     bool // nodes with real components that do not run are started
	result   Result
}

// phase times fn, unless the command was interrupted before it began.
func (r *runner) phase(name string, total int, fn func() (datapath.Diff, error)) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.progress.Phase(name, total)
	t := time.Now()
	diff, err := fn()
	r.result.Timings = append(r.result.Timings, Timing{Phase: name, Took: time.Since(t)})
	r.result.Changes = append(r.result.Changes, diff...)
	return err
}

// run edits the state, plans, and makes the machine follow.
func (r *runner) run(b *box, edit func(*State) error) (*Result, error) {
	st, old, err := b.loadState()
	if err != nil {
		return nil, err
	}
	var p *plan
	var u *underlay
	err = r.phase("plan", 0, func() (datapath.Diff, error) {
		if err := edit(st); err != nil {
			return nil, err
		}
		p, u, err = r.plan(st)
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	// A plan that is the lab's already needs no new state: what is repaired under
	// it, and is cut off, `status` and the next `up` find by looking.
	known := st.unchanged()
	if !known {
		st.Complete = false
		if err := st.write(); err != nil {
			return nil, err
		}
	}
	if err := r.apply(b, st, old, p, u); err != nil {
		return &r.result, err
	}
	if !known {
		st.Complete = true
		if err := st.write(); err != nil {
			return &r.result, err
		}
	}
	r.result.Lab, r.result.Mode, r.result.Took = st.Lab, p.snapshot.Network.Mode, time.Since(r.start)
	r.result.Implementations = st.Implementations
	r.result.Nodes, r.result.Pods, r.result.Services = len(p.snapshot.Nodes), len(p.snapshot.Pods), len(p.snapshot.Services)
	return &r.result, nil
}

// loadState reads the state, or begins one. old is the snapshot that the
// kernel was last made equal to, if any.
func (b *box) loadState() (st *State, old *topology.Snapshot, err error) {
	st, err = ReadState(b.lab)
	if errors.Is(err, ErrNoLab) {
		return &State{Lab: b.lab, ID: b.id, CreatedAt: time.Now().UTC(), CNI: CNIInProcess}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return st, st.Snapshot, nil
}

// plan decides names, addresses, placement and implementations.
func (r *runner) plan(st *State) (*plan, *underlay, error) {
	snap, alloc, err := topology.Allocate(st.Cluster, st.planned(), st.Allocation)
	if err != nil {
		return nil, nil, err
	}
	sup := probeShaping(snap)
	st.Implementations = map[string]string{}
	if err := resolve(st, snap, sup); err != nil {
		return nil, nil, err
	}
	p, err := makePlan(snap)
	if err != nil {
		return nil, nil, err
	}
	u, err := planUnderlay(snap, sup)
	if err != nil {
		return nil, nil, err
	}
	st.Allocation, st.Snapshot = alloc, snap
	return p, u, nil
}

// probeShaping asks the kernel what it can shape with, if anything is to be shaped.
func probeShaping(s *topology.Snapshot) shape.Support {
	for _, seg := range s.Segments {
		if seg.Shaped() {
			return shape.Probe()
		}
	}
	return shape.Support{}
}

// resolve settles what "auto" means on this kernel and notes what will run.
func resolve(st *State, s *topology.Snapshot, sup shape.Support) error {
	switch s.Network.Mode {
	case topology.CalicoIPIP:
		impl, reason, err := bpf.ChooseIPIP(s.Network.IPIP.Implementation)
		if err != nil {
			return err
		}
		s.Network.IPIP.Implementation = impl
		st.Implementations["ipip"] = string(impl)
		if reason != "" {
			st.Implementations["ipip"] += " (" + reason + ")"
		}
	case topology.FlannelUDP:
		if s.Network.UDP.Implementation == topology.UDPeBPF {
			if err := bpf.ProbeUDP(); err != nil {
				return err
			}
		}
		st.Implementations["udp"] = string(s.Network.UDP.Implementation)
	}
	if crowded(s) {
		st.Implementations["neighbours"] = "permanent entries (more than ARP could learn on one machine)"
	}
	for _, seg := range s.Segments {
		if seg.Shaped() {
			st.Implementations["segment "+seg.Name] = shape.Describe(seg, sup)
		}
	}
	return nil
}

// apply makes the machine equal to the plan, in an order in which every object
// finds what it stands on.
func (r *runner) apply(b *box, st *State, old *topology.Snapshot, p *plan, u *underlay) error {
	exe, err := self()
	if err != nil {
		return err
	}
	var inodes map[string]uint64
	steps := []struct {
		name  string
		total int
		run   func() (datapath.Diff, error)
	}{
		{"remove", 0, func() (datapath.Diff, error) { return b.removeOld(r.ctx, old, p, u, st.CNI, exe) }},
		{"underlay", len(u.machines), func() (datapath.Diff, error) { return b.applyUnderlay(r.ctx, u) }},
		{"machines", len(p.snapshot.Nodes), func() (datapath.Diff, error) {
			if !p.real() || !r.boot {
				return nil, nil
			}
			return b.bootNodes(r.ctx, p, exe, r.progress.Step)
		}},
		{"nodes", len(p.all()), func() (datapath.Diff, error) { return b.applyNodes(r.ctx, p.all()) }},
		{"pods", len(p.snapshot.Pods), func() (datapath.Diff, error) {
			diff, in, err := b.plugOrPin(r.ctx, p, st, exe, r.progress.Step)
			inodes = in
			if err != nil {
				return diff, err
			}
			return diff, b.machineInodes(u, inodes)
		}},
		{"daemon", 0, func() (datapath.Diff, error) { return b.applyDaemon(r.ctx, exe, p.desired(u, inodes)) }},
		{"links", 0, func() (datapath.Diff, error) {
			if len(r.result.Changes) == 0 {
				return nil, nil // nothing was set up just now
			}
			return nil, b.awaitLinks(r.ctx, u.machines)
		}},
		{"converge", 0, func() (datapath.Diff, error) { return nil, b.waitConverged(r.ctx, p, r.converge) }},
	}
	for _, s := range steps {
		if err := r.phase(s.name, s.total, s.run); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}
