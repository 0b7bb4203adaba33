package peers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// race is one thing that several do, each from nothing to nothing again.
type race struct {
	part           string // of the section, by which it is chosen
	workload, path string
	main           string // the metric that stands for it
	params         map[string]string
	control        string
	runners        []runner
	series         map[string]*report.Series // by variant
	took           time.Duration             // of the last round
	over           bool                      // no time is left for another
	patience       time.Duration             // of one run
}

// runner does it once.
type runner struct {
	variant string
	run     func(context.Context) ([]reading, error)
}

// reading is one figure of one run; a time or a size, of which less is better.
type reading struct {
	name, unit string
	value      float64
}

// runRaces measures all races round by round; who is first changes. What was
// measured until an error is in the report.
func runRaces(ctx context.Context, o Options, races []*race, generator string, notes ...string) (*report.Report, error) {
	machine, err := matrix.ReadMachine()
	if err != nil {
		return nil, err
	}
	start, err := matrix.ReadCPUTimes()
	if err != nil {
		return nil, err
	}
	r := &report.Report{Started: time.Now(), Notes: notes, Plan: report.Plan{
		Rounds: o.Rounds, MaxRounds: o.Rounds, Seed: o.Seed, BudgetNs: o.Budget.Nanoseconds(),
	}}
	control := ""
	for _, c := range races {
		control = c.control
		r.Plan.Workloads, r.Plan.Paths = addOnce(r.Plan.Workloads, c.workload), addOnce(r.Plan.Paths, c.path)
		for _, x := range c.runners {
			r.Plan.Variants = addOnce(r.Plan.Variants, x.variant)
		}
	}
	err = rounds(ctx, o, races, r)
	for _, c := range races {
		for _, x := range c.runners {
			if s := c.series[x.variant]; s != nil {
				r.Series = append(r.Series, *s)
			}
		}
	}
	end, e := matrix.ReadCPUTimes()
	steal, idle := end.Since(start)
	r.TookNs, r.Partial = time.Since(r.Started).Nanoseconds(), err != nil
	r.Conditions = report.Conditions{
		Slipway: o.Version, Kernel: machine.Kernel, CPU: machine.CPU, CPUs: machine.CPUs, MemoryByte: machine.Memory,
		Started: r.Started, LoadBefore: machine.Load, StealPercent: 100 * steal, IdlePercent: 100 * idle, Generator: generator,
	}
	r.Conclude(control)
	return r, errors.Join(err, e)
}

func addOnce(to []string, s string) []string {
	if slices.Contains(to, s) {
		return to
	}
	return append(to, s)
}

func rounds(ctx context.Context, o Options, races []*race, r *report.Report) error {
	order := rand.New(rand.NewPCG(o.Seed, uint64(len(races))))
	for round := range max(o.Rounds, 1) {
		for _, c := range races {
			if c.over {
				continue
			}
			if o.Budget > 0 && time.Since(r.Started)+c.took > o.Budget {
				c.over = true
				r.Warnings = append(r.Warnings, fmt.Sprintf("%s: the time of %s was used up after %d rounds of %d", c.path, o.Budget, round, o.Rounds))
				continue
			}
			begun := time.Now()
			for _, i := range order.Perm(len(c.runners)) {
				x := c.runners[i]
				o.phase("%s, %s: round %d of %d", c.path, x.variant, round+1, o.Rounds)
				if err := c.once(ctx, x, round); err != nil {
					return fmt.Errorf("%s, %s: %w", c.path, x.variant, err)
				}
			}
			c.took = time.Since(begun)
		}
	}
	return nil
}

// once runs one of the variants and keeps what it measured.
func (c *race) once(ctx context.Context, x runner, round int) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	all, err := x.run(ctx)
	if err != nil {
		return err
	}
	if c.series == nil {
		c.series = map[string]*report.Series{}
	}
	s := c.series[x.variant]
	if s == nil {
		s = &report.Series{Variant: x.variant, Workload: c.workload, Path: c.path, Main: c.main, Params: c.params}
		c.series[x.variant] = s
	}
	for _, f := range all {
		i := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == f.name })
		if i < 0 {
			i = len(s.Metrics)
			s.Metrics = append(s.Metrics, report.Metric{Name: f.name, Unit: f.unit, Better: report.Lower})
		}
		for len(s.Metrics[i].Rounds) < round { // rounds that did not count
			s.Metrics[i].Rounds = append(s.Metrics[i].Rounds, nil)
		}
		s.Metrics[i].Rounds = append(s.Metrics[i].Rounds, new(f.value))
	}
	return nil
}

// chosen are the races whose part is wanted.
func (o Options) chosen(races []*race) []*race {
	return slices.DeleteFunc(races, func(c *race) bool { return !o.wants(c.part) })
}
