package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/datapath/bpf"
	"slipway/datapath/skbtrace"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// ModesOptions say what of the modes to measure. Paths, Targets, Runner and
// Progress may be left out; no other field has a default of its own.
type ModesOptions struct {
	Exe       string // the slipway program, which brings the labs up
	Version   string // of it, for the report
	Variants  []Variant
	Here      *Running // measure in this lab, and in no other: there are no Variants then
	Workloads []string // of Workloads
	Paths     []string // of Paths; empty: other-node, and all for the main workloads
	Targets   []string // of Targets; empty: pods, and all for tcp-crr
	Streams   []int    // of tcp-stream
	Controls  bool     // also other write sizes, one MTU for all, and no offloads
	Rounds    int      // at least
	MaxRounds int      // at most, while the intervals are wide
	Duration  time.Duration
	WarmUp    time.Duration
	Budget    time.Duration // of everything, the labs included; zero: none
	Control   string        // the variant that ratios are to
	Seed      uint64
	Runner    load.Runner
	Generator string // Runner's name, for the report
	Progress  lab.Progress
}

// ModesPlan is a bench that is decided.
type ModesPlan struct {
	ModesOptions
	// All are the variants with those that explain others.
	All   []Variant
	Cases []matrix.Case
	// Measurements are those of one round; Labs have to be brought up.
	Measurements, Labs int
	// Round is how long a round is expected to take.
	Round time.Duration
}

// Plan decides what will be done.
func (o ModesOptions) Plan() ModesPlan {
	p := ModesPlan{ModesOptions: o, All: o.Variants}
	if o.Controls {
		p.All = withControls(o.Variants)
	}
	p.Labs = len(p.All)
	if p.hasControlPaths() && o.Here == nil {
		p.Labs++
	}
	for _, c := range o.cases() {
		n := p.count(c)
		if n == 0 {
			continue
		}
		p.Cases = append(p.Cases, c)
		p.Measurements += n
		if c.Job.Workload == load.Idle { // in all labs at once
			n = 1
		}
		p.Round += time.Duration(n) * c.Takes()
	}
	return p
}

// hasControlPaths reports whether anything is measured beside the modes.
func (o ModesOptions) hasControlPaths() bool {
	return slices.ContainsFunc(o.cases(), func(c matrix.Case) bool { return slices.Contains(controlPaths, c.Path) })
}

// count is in how many networks a case is measured.
func (p ModesPlan) count(c matrix.Case) (n int) {
	if p.Here != nil {
		if c.Job.Workload == load.Idle || slices.Contains(p.Here.Paths(), c.Path) {
			return 1
		}
		return 0
	}
	if slices.Contains(controlPaths, c.Path) {
		return 1
	}
	for _, v := range p.All {
		if (c.Job.Workload == load.Idle || v.has(c.Path)) && (len(c.Only) == 0 || slices.Contains(c.Only, v.Name())) {
			n++
		}
	}
	return n
}

// Expected is how long all rounds take if the machine is not busy. The budget
// ends them before.
func (p ModesPlan) Expected() time.Duration { return p.Overhead() + time.Duration(p.MaxRounds)*p.Round }

// Fit is how many rounds there is time for.
func (p ModesPlan) Fit() int {
	if p.Budget == 0 {
		return p.MaxRounds
	}
	return min(p.MaxRounds, int((p.Budget-p.Overhead())/p.Round))
}

// Overhead is how long the labs take to come and go, or the pods in one that runs,
// and the report to be made.
func (p ModesPlan) Overhead() time.Duration {
	if p.Here != nil && p.Here.Components.Real() {
		return 15 * time.Second
	}
	return 5*time.Second + time.Duration(p.Labs)*500*time.Millisecond
}

// networks are all that a bench brings up.
type networks struct {
	mu      sync.Mutex
	beds    []matrix.Bed
	reasons load.DropReasons // nil where the kernel gives none
}

// Modes measures the modes side by side: a lab of each variant is up all the
// time. The labs are taken down also when it fails or ctx ends; a report comes
// back as far as it got, in whole rounds. With p.Here it measures in that lab, and
// leaves it as it was.
func Modes(ctx context.Context, p ModesPlan) (r *report.Report, err error) {
	if p.Progress == nil {
		p.Progress = lab.Silent{}
	}
	started := time.Now()
	before, err := matrix.ReadMachine()
	if err != nil {
		return nil, err
	}
	var n networks
	switch drops, err := skbtrace.CountDrops(); {
	case err == nil:
		defer drops.Close() //nolint:errcheck // the process's end does the same
		n.reasons = drops
	case !errors.As(err, new(*bpf.UnsupportedError)):
		return nil, err
	}
	defer func() { err = errors.Join(err, n.down(ctx)) }()
	up, control := n.up, p.Control
	if p.Here != nil {
		up, control = n.here, "" // there is nothing to be a ratio of
	}
	beds, err := up(ctx, p)
	if err != nil {
		return nil, err
	}
	o := matrix.Options{
		Runner: p.Runner, Generator: p.Generator, Version: p.Version, Rounds: p.Rounds, MaxRounds: p.MaxRounds,
		Control: control, Seed: p.Seed, Progress: p.Progress, Before: before,
	}
	if p.Budget > 0 {
		o.Budget = max(p.Budget-time.Since(started)-p.Overhead()/2, time.Nanosecond)
	}
	r, err = matrix.Run(ctx, o, beds, p.Cases)
	if r != nil {
		r.Notes = append(r.Notes, p.notes(r)...)
		if p.Here != nil {
			r.Conditions.Lab = p.Here.String()
		}
	}
	return r, err
}

// here puts the pods into the lab that runs, which are taken out in any case.
func (n *networks) here(ctx context.Context, p ModesPlan) ([]matrix.Bed, error) {
	p.Progress.Phase("pods in lab "+p.Here.Lab, 0)
	b, err := comeTo(ctx, p.Here, n.reasons)
	if b != nil {
		n.beds = append(n.beds, b)
	}
	if err != nil {
		return nil, err
	}
	return append([]matrix.Bed{b}, b.controls()...), nil
}

// labsAtOnce is how many labs are brought up or taken down at a time: those with
// BGP mostly wait.
const labsAtOnce = 4

// up brings all labs up, and makes the beds in the order of the variants.
func (n *networks) up(ctx context.Context, p ModesPlan) ([]matrix.Bed, error) {
	p.Progress.Phase("labs", p.Labs)
	labs := make([]*labBed, p.Labs)
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(labsAtOnce)
	for i := range labs {
		g.Go(func() error {
			if each.Err() != nil {
				return each.Err()
			}
			v, name := controlVariant, controlLab
			if i < len(p.All) {
				v, name = p.All[i], p.All[i].Name()
			}
			var err error
			if labs[i], err = n.add(each, program{p.Exe}, v, name); err != nil {
				return fmt.Errorf("lab of %s: %w", name, err)
			}
			p.Progress.Step()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var beds []matrix.Bed
	for _, l := range labs[:len(p.All)] {
		beds = append(beds, l)
	}
	if p.Labs > len(p.All) {
		controls, err := controlBeds(ctx, labs[len(p.All)])
		if err != nil {
			return nil, err
		}
		beds = append(beds, controls...)
	}
	return beds, nil
}

// add brings up one lab, which is taken down in any case.
func (n *networks) add(ctx context.Context, program program, v Variant, name string) (*labBed, error) {
	if err := refuseTaken(labName(name)); err != nil {
		return nil, err
	}
	l := newLabBed(name)
	l.reasons = n.reasons
	n.mu.Lock()
	n.beds = append(n.beds, l)
	n.mu.Unlock()
	if err := l.up(ctx, program, v); err != nil {
		return nil, err
	}
	if v.NoOffloads {
		return l, l.setNoOffloads()
	}
	return l, nil
}

// down closes every bed that was begun.
func (n *networks) down(ctx context.Context) error {
	errs := make([]error, len(n.beds))
	var g errgroup.Group
	g.SetLimit(labsAtOnce)
	for i, b := range n.beds {
		g.Go(func() error {
			errs[i] = b.Close(ctx)
			return nil
		})
	}
	_ = g.Wait() // no closing ends the others
	return errors.Join(errs...)
}
