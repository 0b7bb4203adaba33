// Package curve measures how figures grow with a size: services, pods on a node,
// BGP speakers, delay, packets. Every point of every line is measured once in
// each round, in an order that is shuffled anew, so that what else the machine
// does meets all alike.
package curve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// Options say what to measure. Lines, Points, MaxRounds and Progress may be
// zero; no other field has a default of its own.
type Options struct {
	Name      string   // of the curve, one of [Names]
	Lines     []string // what is compared; none: the curve's own
	Points    []int    // where, in the curve's unit; none: the curve's own
	Rounds    int      // at least
	MaxRounds int      // at most, while main metrics are not narrow
	// Duration is of one measurement of traffic, WarmUp of what comes before.
	Duration, WarmUp time.Duration
	// Budget bounds the rounds. What has been measured by then is the report.
	Budget   time.Duration
	Seed     uint64 // of the order and the bootstrap
	Version  string // of the program, for the report
	Progress matrix.Progress
}

// kind is one curve.
type kind struct {
	name, title string
	unit        string // of the points, for people: "services"
	param       string // that the points are in a series' params
	suffix      string // of the points there: "ms"
	lines       []string
	points      []int
	low, high   int // what a point can be
	// line says what is wrong with a line's name.
	line func(string) error
	// control is the line that ratios are to, if it is among the lines.
	control string
	// main are the metrics that decide on further rounds.
	main []string
	// open makes what stands for the whole run, and the cells.
	open  func(ctx context.Context, o *Options) (*curve, error)
	notes []string
	// patience is how long one cell may take; longer ones are left out.
	patience time.Duration
	// conclude says in words what a finished series shows; empty: nothing.
	conclude func(s *report.Series) string
}

var kinds = []*kind{services, pods, speakers, delay, size}

// Names are the curves that there are.
func Names() (out []string) {
	for _, k := range kinds {
		out = append(out, k.name)
	}
	return out
}

func find(name string) (*kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return nil, &OptionError{fmt.Sprintf("curve %q is not one of %s", name, strings.Join(Names(), ", "))}
}

// OptionError says what is wrong with options.
type OptionError struct{ Detail string }

// Error is the detail.
func (e *OptionError) Error() string { return e.Detail }

// Fill puts the curve's own lines and points where options name none, and
// checks those that are named.
func (o *Options) Fill() error {
	k, err := find(o.Name)
	if err != nil {
		return err
	}
	if len(o.Lines) == 0 {
		o.Lines = k.lines
	}
	if len(o.Points) == 0 {
		o.Points = k.points
	}
	for _, l := range o.Lines {
		if err := k.line(l); err != nil {
			return err
		}
	}
	for _, p := range o.Points {
		if p < k.low || p > k.high {
			return &OptionError{fmt.Sprintf("%d %s: they are %d to %d", p, k.unit, k.low, k.high)}
		}
	}
	if twice(o.Lines) || twice(o.Points) {
		return &OptionError{"a line or a point is named twice"}
	}
	o.MaxRounds = max(o.MaxRounds, o.Rounds)
	return nil
}

func twice[T string | int](all []T) bool {
	seen := map[T]bool{}
	for _, v := range all {
		if seen[v] {
			return true
		}
		seen[v] = true
	}
	return false
}

// Plan says in a line or two what would be done.
func (o *Options) Plan() string {
	k, err := find(o.Name)
	if err != nil {
		return err.Error()
	}
	points := make([]string, len(o.Points))
	for i, p := range o.Points {
		points[i] = strconv.Itoa(p)
	}
	rounds := strconv.Itoa(o.Rounds)
	if o.MaxRounds > o.Rounds {
		rounds += " to " + strconv.Itoa(o.MaxRounds)
	}
	return fmt.Sprintf("%s: %s %s, for %s; %s rounds, at most %s", k.title, strings.Join(points, ", "), k.unit, strings.Join(o.Lines, ", "), rounds, o.Budget)
}

// curve is what is measured.
type curve struct {
	cells []*cell
	// notes and warnings are what was found on the way.
	notes, warnings []string
	close           func(ctx context.Context) error
}

// cell is one point of one line.
type cell struct {
	line    string
	point   int
	measure func(ctx context.Context) ([]reading, error)

	series  []*report.Series
	tooLong bool // it took longer than may be, and is not measured again
}

// reading is what a cell showed of one workload in one round.
type reading struct {
	workload, path, target string
	nature                 load.Nature
	figures                load.Figures
}

// runner is one bench on its way.
type runner struct {
	Options
	*kind
	*curve
	report *report.Report
	rounds int           // that are complete
	last   time.Duration // that the last of them took
}

// Run measures a curve. A report comes back with an error, too, as far as it got,
// in whole rounds; whatever was made is taken away again.
func Run(ctx context.Context, o Options) (rep *report.Report, err error) {
	k, err := find(o.Name)
	if err != nil {
		return nil, err
	}
	if err := o.Fill(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	machine, err := matrix.ReadMachine()
	if err != nil {
		return nil, err
	}
	before, err := matrix.ReadCPUTimes()
	if err != nil {
		return nil, err
	}
	r := &runner{Options: o, kind: k, report: &report.Report{Started: time.Now()}}
	if r.curve, err = k.open(ctx, &r.Options); err == nil {
		err = r.all(ctx)
		err = errors.Join(err, r.close(ctx))
	} else {
		r.curve = &curve{}
	}
	after, e := matrix.ReadCPUTimes()
	r.finish(machine, before, after, err != nil)
	return r.report, errors.Join(err, e)
}

type silent struct{}

func (silent) Phase(string, int) {}
func (silent) Step()             {}

// errBudget is why a run ends that has used up its time.
var errBudget = errors.New("the time was used up")

// all runs the rounds.
func (r *runner) all(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Budget, errBudget)
	defer cancel()
	deadline, _ := ctx.Deadline()
	for r.rounds < r.MaxRounds && (r.rounds < r.Rounds || !r.settled()) {
		if r.rounds > 0 && time.Until(deadline) < r.last {
			break
		}
		begun := time.Now()
		if err := r.round(ctx); err != nil {
			if !errors.Is(context.Cause(ctx), errBudget) {
				return err
			}
			if r.rounds == 0 {
				return fmt.Errorf("one round takes longer than the %s that it may: allow more time, or measure fewer points", r.Budget)
			}
			break
		}
		r.last = time.Since(begun)
		r.rounds++
	}
	if r.rounds < r.Rounds {
		r.warnings = append(r.warnings, fmt.Sprintf("the time of %s was used up after %d rounds of %d", r.Budget, r.rounds, r.Rounds))
	}
	return nil
}

// round measures every cell once. Its figures count only if all came about.
func (r *runner) round(ctx context.Context) error {
	r.Progress.Phase(r.heading(), len(r.cells))
	got := make([][]reading, len(r.cells))
	for _, i := range order(r.Seed, r.rounds, len(r.cells)) {
		var err error
		if got[i], err = r.one(ctx, r.cells[i]); err != nil {
			return err
		}
		r.Progress.Step()
	}
	for i, readings := range got {
		for _, g := range readings {
			r.cells[i].add(g, r.rounds, r.kind)
		}
	}
	return nil
}

// errPatience is why a cell is given up.
var errPatience = errors.New("it took too long")

// one measures a cell. One that takes too long shows nothing, now and later.
func (r *runner) one(ctx context.Context, c *cell) ([]reading, error) {
	if c.tooLong {
		return nil, nil
	}
	bounded, cancel := context.WithTimeoutCause(ctx, r.patience, errPatience)
	defer cancel()
	got, err := c.measure(bounded)
	if err == nil {
		return got, nil
	}
	if errors.Is(context.Cause(bounded), errPatience) {
		c.tooLong = true
		r.warnings = append(r.warnings, fmt.Sprintf("%s, %d %s: was given up after %s, and left out from then on", c.line, c.point, r.unit, r.patience))
		return nil, nil
	}
	return nil, fmt.Errorf("%s, %d %s: %w", c.line, c.point, r.unit, err)
}

// heading says which round begins, and how long the rest takes.
func (r *runner) heading() string {
	text := fmt.Sprintf("%s: round %d of %d", r.name, r.rounds+1, r.Rounds)
	if r.MaxRounds > r.Rounds {
		text += fmt.Sprintf(" to %d", r.MaxRounds)
	}
	if r.rounds > 0 {
		text += fmt.Sprintf(" (%s a round)", r.last.Round(time.Second))
	}
	return text
}

// settled reports whether all main metrics are known well enough.
func (r *runner) settled() bool {
	for _, c := range r.cells {
		for _, s := range c.series {
			for _, m := range s.Metrics {
				if slices.Contains(r.main, m.Name) && !report.Narrow(report.Summarize(report.Values(m.Rounds), r.Seed), narrow) {
					return false
				}
			}
		}
	}
	return true
}

// narrow is how far the interval of a median may reach to either side for no
// more rounds to be needed.
const narrow = 0.05

// add puts a round's figures into the cell's series, in a fixed order.
func (c *cell) add(g reading, round int, k *kind) {
	s := c.at(g, k)
	names := slices.SortedFunc(maps.Keys(g.figures), byMeaning)
	for _, name := range names {
		v := g.figures[name]
		i := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == name })
		if i < 0 {
			m := meaningOf(name)
			s.Metrics = append(s.Metrics, report.Metric{Name: name, Unit: m.Unit, Better: report.Better(m.Better)})
			i = len(s.Metrics) - 1
		}
		m := &s.Metrics[i]
		for len(m.Rounds) < round {
			m.Rounds = append(m.Rounds, nil)
		}
		m.Rounds = append(m.Rounds, &v)
	}
}

// at finds the series of a reading, or begins it.
func (c *cell) at(g reading, k *kind) *report.Series {
	for _, s := range c.series {
		if s.Workload == g.workload && s.Path == g.path && s.Target == g.target {
			return s
		}
	}
	s := &report.Series{
		Variant: c.line, Workload: g.workload, Path: g.path, Target: g.target, Params: map[string]string{k.param: strconv.Itoa(c.point) + k.suffix},
		MTU: g.nature.MTU, Offloads: g.nature.Offloads,
	}
	c.series = append(c.series, s)
	return s
}
