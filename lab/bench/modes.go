package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
	"slipway/topology"
)

// ModesOptions say what of the modes to measure. Progress may be nil; no other
// field has a default of its own.
type ModesOptions struct {
	Exe       string // the slipway program, which brings the labs up
	Version   string // of it, for the report
	Modes     []topology.ModeName
	Workloads []string // of Workloads
	Rounds    int      // at least
	MaxRounds int      // at most, while the intervals are wide
	Duration  time.Duration
	WarmUp    time.Duration
	Control   topology.ModeName // that ratios are to
	Seed      uint64
	Progress  lab.Progress
}

// Narrowness that ends a bench before MaxRounds: the interval of the median of
// every workload's main metric reaches no further to either side.
const narrow = 0.05

// job is what is measured, where, and by what it is judged.
type job struct {
	name   string
	target string // pod | clusterip
	main   string // the metric that decides on further rounds
	params map[string]string
}

var jobs = []job{
	{load.TCPStream, "pod", load.Throughput, map[string]string{"write": "128KiB", "streams": "1"}},
	{load.TCPRequests, "pod", load.P50, map[string]string{"size": "1"}},
	{load.TCPConnects, "clusterip", load.P50, map[string]string{"size": "1"}},
	{load.UDPPackets, "pod", load.PacketRate, nil},
}

// Workloads are the names of what can be measured.
func Workloads() []string {
	var out []string
	for _, w := range jobs {
		out = append(out, w.name)
	}
	return out
}

// modes is one bench on its way.
type modes struct {
	ModesOptions
	labs   []*modeLab
	report *report.Report
}

// Modes measures the modes side by side: a lab of each is up all the time, the
// rounds go through all of them in turn, and a round's figure is compared with
// the control's of the same round. The labs are taken down also when it fails or
// ctx ends; a report comes back as far as it got, in whole rounds.
func Modes(ctx context.Context, o ModesOptions) (r *report.Report, err error) {
	if o.Progress == nil {
		o.Progress = lab.Silent{}
	}
	b := &modes{ModesOptions: o, report: &report.Report{Started: time.Now(), Plan: o.plan()}}
	c, err := ReadConditions()
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := c.Finish(); err == nil {
			err = e
		}
		b.finish(c, err != nil)
	}()
	defer func() { err = errors.Join(err, b.down(ctx)) }()
	if err := b.up(ctx); err != nil {
		return b.report, err
	}
	for round := range o.MaxRounds {
		if round >= o.Rounds && b.settled() {
			break
		}
		if err := b.round(ctx, round); err != nil {
			return b.report, err
		}
	}
	return b.report, nil
}

func (o ModesOptions) plan() report.Plan {
	p := report.Plan{
		Workloads: o.Workloads, Paths: []string{"other-node"}, Rounds: o.Rounds, MaxRounds: o.MaxRounds,
		RoundNs: o.Duration.Nanoseconds(), WarmUpNs: o.WarmUp.Nanoseconds(), Seed: o.Seed,
	}
	for _, m := range o.Modes {
		p.Variants = append(p.Variants, string(m))
	}
	return p
}

// Longest is how long the measuring takes at most, without the labs.
func (o ModesOptions) Longest() time.Duration {
	return time.Duration(o.MaxRounds*len(o.Modes)*len(o.Workloads)) * (o.Duration + o.WarmUp)
}

// round measures everything once. Its figures count only if all of it came about.
func (b *modes) round(ctx context.Context, round int) error {
	type got struct {
		s *report.Series
		f load.Figures
	}
	var all []got
	for _, w := range jobs {
		if !slices.Contains(b.Workloads, w.name) {
			continue
		}
		for _, l := range b.labs {
			b.Progress.Phase(fmt.Sprintf("round %d of %d to %d: %s, %s", round+1, b.Rounds, b.MaxRounds, w.name, l.mode), 0)
			f, err := load.Native{}.Run(ctx, l.job(w, b.Duration, b.WarmUp))
			if err != nil {
				return fmt.Errorf("%s: %w", l.mode, err)
			}
			all = append(all, got{b.series(l, w), f})
		}
	}
	for _, g := range all {
		add(g.s, g.f, round)
	}
	return nil
}

// series finds the row of a workload in a mode, or begins it.
func (b *modes) series(l *modeLab, w job) *report.Series {
	for i := range b.report.Series {
		if s := &b.report.Series[i]; s.Variant == string(l.mode) && s.Workload == w.name && s.Target == w.target {
			return s
		}
	}
	if b.report.Series == nil { // never moved: rounds keep pointers into it
		b.report.Series = make([]report.Series, 0, len(b.labs)*len(jobs))
	}
	b.report.Series = append(b.report.Series, report.Series{
		Variant: string(l.mode), Workload: w.name, Path: "other-node", Target: w.target, Params: w.params, MTU: l.mtu,
	})
	return &b.report.Series[len(b.report.Series)-1]
}

// add puts a round's figures into a row, in the order of their names.
func add(s *report.Series, f load.Figures, round int) {
	for _, name := range metricOrder {
		v, ok := f[name]
		if !ok {
			continue
		}
		i := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == name })
		if i < 0 {
			meaning, _ := load.Means(name)
			s.Metrics = append(s.Metrics, report.Metric{Name: name, Unit: meaning.Unit, Better: report.Better(meaning.Better)})
			i = len(s.Metrics) - 1
		}
		m := &s.Metrics[i]
		for len(m.Rounds) < round {
			m.Rounds = append(m.Rounds, nil)
		}
		m.Rounds = append(m.Rounds, &v)
	}
}

// metricOrder is how a row reads.
var metricOrder = []string{
	load.Throughput, load.PacketRate, load.Loss, load.Rate, load.P50, load.P90, load.P99, load.P999, load.Retransmits, load.MSS,
}

// settled reports whether every row's main metric is known well enough.
func (b *modes) settled() bool {
	for _, s := range b.report.Series {
		for _, w := range jobs {
			for _, m := range s.Metrics {
				if w.name == s.Workload && w.main == m.Name && !report.Narrow(report.Summarize(report.Values(m.Rounds), b.Seed), narrow) {
					return false
				}
			}
		}
	}
	return true
}

// finish writes down what is known at the end.
func (b *modes) finish(c Conditions, partial bool) {
	host, _ := os.Hostname()
	b.report.TookNs, b.report.Partial = time.Since(b.report.Started).Nanoseconds(), partial
	b.report.Conditions = report.Conditions{
		Slipway: b.Version, Host: host, Kernel: c.Kernel + " " + c.Arch, CPU: c.CPUModel, CPUs: c.CPUs, Started: c.Time,
		LoadBefore: c.LoadAverage, StealPercent: 100 * c.Steal, IdlePercent: 100 * c.Idle, Generator: "slipway",
	}
	b.report.Notes = append(b.report.Notes,
		"One lab of each mode is up all the time, on one machine; rounds go through all modes in turn, workload by workload.",
		"Ratios are to "+string(b.Control)+" in the same round. Everything is on one machine: no wire limits, segmentation is left to the last device.",
		"tcp-stream hands "+strconv.Itoa(load.DefaultWrite>>10)+" KiB to the kernel at once; how a write packs into segments depends on the MTU, so a part of a difference may be packing and not encapsulation.")
	b.report.Conclude(string(b.Control))
}
