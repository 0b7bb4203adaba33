package matrix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
)

// run is one bench on its way.
type run struct {
	Options
	rows     []*row
	report   *report.Report
	deadline time.Time // zero: none
	repeated int       // rows that were measured again, for much steal
	noisy    []string  // those that stayed so
	failures []string
}

// row is a case with the beds that have it.
type row struct {
	Case
	cells  []*cell
	series []report.Series // one for each cell
	rounds int
	took   time.Duration // the last time; before, what is expected
}

// cell is a case in a bed.
type cell struct {
	bed  Bed
	ends Ends
	errs int // how often it failed in a row
}

// Run measures every case in every bed that has it, round by round. A case's beds
// are measured one right after the other, in an order that the seed shuffles
// anew each time. After o.Rounds rounds only cases whose main metrics are not yet
// narrow go on. A report comes back with an error, too, also when ctx ended: as
// far as it got, in whole rounds.
func Run(ctx context.Context, o Options, beds []Bed, cases []Case) (*report.Report, error) {
	r, err := prepare(o, beds, cases)
	if err != nil {
		return nil, err
	}
	before, err := r.CPUTimes()
	if err != nil {
		return nil, err
	}
	err = r.all(ctx)
	after, e := r.CPUTimes()
	r.finish(before, after, err != nil)
	return r.report, errors.Join(err, e)
}

// prepare finds every case's ends and looks at the devices that send.
func prepare(o Options, beds []Bed, cases []Case) (*run, error) {
	o = o.filled()
	r := &run{Options: o, report: &report.Report{Started: time.Now(), Plan: o.plan(beds, cases)}}
	if o.Budget > 0 {
		r.deadline = r.report.Started.Add(o.Budget)
	}
	if r.Before == (Machine{}) {
		var err error
		if r.Before, err = ReadMachine(); err != nil {
			return nil, err
		}
	}
	for _, c := range cases {
		w := &row{Case: c}
		for _, b := range beds {
			if err := w.join(b); err != nil {
				return nil, fmt.Errorf("%s: %w", b.Name(), err)
			}
		}
		if len(w.cells) > 0 {
			w.took = w.expected()
			r.rows = append(r.rows, w)
		}
	}
	if len(r.rows) == 0 {
		return nil, errors.New("no network has what was to be measured")
	}
	return r, nil
}

// join adds a bed to a row that it takes part in. At rest all do that have
// processes of their own, whatever paths they have.
func (w *row) join(b Bed) error {
	if !w.in(b.Name()) {
		return nil
	}
	s := report.Series{Variant: b.Name(), Workload: w.Job.Workload, Path: w.Path, Target: w.Target, Params: w.Params, Main: w.Main}
	c := &cell{bed: b}
	if w.Job.Workload == load.Idle {
		if len(b.Watch().Processes) == 0 {
			return nil
		}
	} else {
		var ok bool
		if c.ends, ok = b.Ends(w.Path, w.Target); !ok {
			return nil
		}
	}
	if c.ends.Sender.NS != nil {
		nature, err := c.ends.Sender.Nature()
		if err != nil {
			return err
		}
		s.MTU, s.Offloads = nature.MTU, nature.Offloads
	}
	w.cells, w.series = append(w.cells, c), append(w.series, s)
	return nil
}

func (o Options) filled() Options {
	o.Rounds = max(o.Rounds, 1)
	o.MaxRounds = max(o.Rounds, o.MaxRounds)
	if o.Narrow == 0 {
		o.Narrow = 0.05
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	if o.Runner == nil {
		o.Runner = load.Native{}
	}
	if o.CPUTimes == nil {
		o.CPUTimes = ReadCPUTimes
	}
	return o
}

type silent struct{}

func (silent) Phase(string, int) {}
func (silent) Step()             {}

func (o Options) plan(beds []Bed, cases []Case) report.Plan {
	p := report.Plan{Rounds: o.Rounds, MaxRounds: o.MaxRounds, Seed: o.Seed, BudgetNs: o.Budget.Nanoseconds()}
	for _, b := range beds {
		p.Variants = append(p.Variants, b.Name())
	}
	for _, c := range cases {
		if !slices.Contains(p.Workloads, c.Job.Workload) {
			p.Workloads = append(p.Workloads, c.Job.Workload)
		}
		if c.Path != "" && !slices.Contains(p.Paths, c.Path) {
			p.Paths = append(p.Paths, c.Path)
		}
		if c.Job.Workload != load.Idle && p.RoundNs == 0 {
			p.RoundNs, p.WarmUpNs = c.Job.Duration.Nanoseconds(), c.Job.WarmUp.Nanoseconds()
		}
	}
	return p
}

// expected is how long a row takes: idle is measured in all beds at once.
func (w *row) expected() time.Duration {
	if w.Job.Workload == load.Idle {
		return w.Takes()
	}
	return time.Duration(len(w.cells)) * w.Takes()
}

// all runs the rounds.
func (r *run) all(ctx context.Context) error {
	for round := range r.MaxRounds {
		due := r.due(round)
		if len(due) == 0 {
			return nil
		}
		if !r.fits(due) {
			if round == 0 {
				return fmt.Errorf("not even one round of about %s fits into the %s that are left", timeOf(due).Round(time.Second), r.Budget.Round(time.Millisecond))
			}
			if round < r.Rounds {
				r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("the time of %s was used up after %d rounds of %d", r.Budget, round, r.Rounds))
			}
			return nil
		}
		if err := r.round(ctx, round, due); err != nil {
			return err
		}
	}
	return nil
}

// due are the rows that have to be measured in a round.
func (r *run) due(round int) []*row {
	if round < r.Rounds {
		return r.rows
	}
	var out []*row
	for _, w := range r.rows {
		if !w.settled(r.Narrow, r.Seed) {
			out = append(out, w)
		}
	}
	return out
}

// settled reports whether a row's main metric is known well enough in all beds.
func (w *row) settled(narrow float64, seed uint64) bool {
	for i := range w.series {
		for _, m := range w.series[i].Metrics {
			if m.Name == w.Main && !report.Narrow(report.Summarize(report.Values(m.Rounds), seed), narrow) {
				return false
			}
		}
	}
	return true
}

// fits reports whether a round of these rows would end in time.
func (r *run) fits(due []*row) bool {
	return r.deadline.IsZero() || !time.Now().Add(timeOf(due)).After(r.deadline)
}

func timeOf(rows []*row) (d time.Duration) {
	for _, w := range rows {
		d += w.took
	}
	return d
}

// round measures rows once. Its figures count only if all of it came about.
func (r *run) round(ctx context.Context, round int, due []*row) error {
	steps := 0
	for _, w := range due {
		steps += len(w.cells)
	}
	r.Progress.Phase(r.heading(round, due), steps)
	figures, err := r.eachRow(ctx, round, due)
	if err != nil {
		return err
	}
	for i, w := range due {
		w.add(figures[i])
	}
	return nil
}

// eachRow measures the rows one after the other, or has that done elsewhere.
func (r *run) eachRow(ctx context.Context, round int, due []*row) ([][]load.Figures, error) {
	if r.Round != nil {
		return r.remote(ctx, round, due)
	}
	figures := make([][]load.Figures, len(due))
	for i, w := range due {
		var err error
		if figures[i], err = r.measureRow(ctx, round, i, w); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

// heading says which round begins and how long the rest takes, this one included.
func (r *run) heading(round int, due []*row) string {
	whole := timeOf(r.rows)
	least := time.Duration(max(0, r.Rounds-round-1))*whole + timeOf(due)
	most := time.Duration(r.MaxRounds-round-1)*whole + timeOf(due)
	if !r.deadline.IsZero() {
		left := time.Until(r.deadline)
		least, most = min(least, left), min(most, left)
	}
	text := fmt.Sprintf("round %d of %d", round+1, r.Rounds)
	if r.MaxRounds > r.Rounds {
		text += fmt.Sprintf(" to %d", r.MaxRounds)
	}
	if round >= r.Rounds {
		return text + fmt.Sprintf(" (%d of %d cases still vary; at most %s to go):", len(due), len(r.rows), most.Round(time.Second))
	}
	between := least.Round(time.Second).String()
	if to := most.Round(time.Second).String(); to != between {
		between += " to " + to
	}
	return text + fmt.Sprintf(" (%s to go):", between)
}

// order shuffles the beds of a row anew in every round.
func (r *run) order(round, row, n int) []int {
	return rand.New(rand.NewPCG(r.Seed, uint64(round)<<32|uint64(row))).Perm(n)
}

// finish writes down what is known at the end.
func (r *run) finish(before, after CPUTimes, partial bool) {
	for _, w := range r.rows {
		w.pad()
		if w.rounds > 0 {
			r.report.Series = append(r.report.Series, w.series...)
		}
	}
	host, _ := os.Hostname()
	m := r.Before
	steal, idle := after.Since(before)
	r.report.TookNs, r.report.Partial = time.Since(r.report.Started).Nanoseconds(), partial
	r.report.Conditions = report.Conditions{
		Slipway: r.Version, Host: host, Kernel: m.Kernel + " " + m.Arch, CPU: m.CPU, CPUs: m.CPUs, MemoryByte: m.Memory,
		Started: r.report.Started, LoadBefore: m.Load, StealPercent: 100 * steal, IdlePercent: 100 * idle, Generator: r.Generator,
	}
	if r.Describe != nil {
		r.Describe(r.report)
	}
	r.doubts()
	r.report.Conclude(r.Control)
}
