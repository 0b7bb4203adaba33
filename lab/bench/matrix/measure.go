package matrix

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
)

// muchSteal is the share of the CPUs' time in a row's measurements that spoils
// them: a quiet virtual machine shows up to 1 %, and beds that follow each other
// within seconds no longer meet it alike.
const muchSteal = 0.05

// maxFailures is how often in a row one case may fail in one bed before the run
// ends.
const maxFailures = 3

// measureRow measures a case in its beds, and a second time if a hypervisor took
// much of the CPUs' time meanwhile, of which the quieter one counts.
func (r *run) measureRow(ctx context.Context, round, at int, w *row) ([]load.Figures, error) {
	figures, steal, err := r.once(ctx, round, at, w)
	if err != nil || steal < muchSteal || !r.spare(w) {
		r.note(round, w, steal, err)
		return figures, err
	}
	r.repeated++
	again, less, err := r.once(ctx, round, at, w)
	if err != nil {
		return nil, err
	}
	if less < steal {
		figures, steal = again, less
	}
	r.note(round, w, steal, nil)
	return figures, nil
}

// spare reports whether there is time to measure a row once more: a tenth of the
// run's rows at most are, and none beyond the budget.
func (r *run) spare(w *row) bool {
	return r.repeated < (len(r.rows)*r.Rounds+9)/10 && r.fits([]*row{w})
}

// note remembers that a row stayed noisy.
func (r *run) note(round int, w *row, steal float64, err error) {
	if err == nil && steal >= muchSteal {
		r.noisy = append(r.noisy, fmt.Sprintf("%s in round %d (%.0f %%)", w.title(), round+1, 100*steal))
	}
}

// title names a case in warnings.
func (c Case) title() string {
	t := c.Job.Workload + " " + c.Path
	if c.Target != Direct && c.Target != Pod {
		t += " " + c.Target
	}
	return t
}

// once measures a case in its beds, and says how much was stolen meanwhile.
func (r *run) once(ctx context.Context, round, at int, w *row) ([]load.Figures, float64, error) {
	before, err := r.CPUTimes()
	if err != nil {
		return nil, 0, err
	}
	start := time.Now()
	out := make([]load.Figures, len(w.cells))
	if w.Job.Workload == load.Idle {
		err = r.idle(ctx, w, out)
	} else {
		err = r.eachBed(ctx, round, at, w, out)
	}
	if err != nil {
		return nil, 0, err
	}
	w.took = time.Since(start)
	after, err := r.CPUTimes()
	steal, _ := after.Since(before)
	return out, steal, err
}

// eachBed measures the beds one after the other. One that fails has no figures;
// one that keeps failing ends the run.
func (r *run) eachBed(ctx context.Context, round, at int, w *row, out []load.Figures) error {
	for _, i := range r.order(round, at, len(w.cells)) {
		c := w.cells[i]
		f, err := r.measure(ctx, w.Case, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.fails(c, err); err != nil {
			return err
		}
		out[i] = f
		r.Progress.Step()
	}
	return nil
}

// measure runs a case once in a bed, and adds what it cost.
// fails counts a measurement that failed, or did not: one bed that keeps failing at
// a case ends the run.
func (r *run) fails(c *cell, err error) error {
	if err == nil {
		c.errs = 0
		return nil
	}
	err = fmt.Errorf("%s: %w", c.bed.Name(), err)
	if c.errs++; c.errs == maxFailures {
		return err
	}
	r.failures = append(r.failures, err.Error())
	return nil
}

// remote has a whole round measured elsewhere.
func (r *run) remote(ctx context.Context, round int, due []*row) ([][]load.Figures, error) {
	var asked []Asked
	for _, w := range due {
		for _, c := range w.cells {
			asked = append(asked, Asked{Case: w.Case, Bed: c.bed.Name()})
		}
	}
	begun := time.Now()
	answers, err := r.Round(ctx, round, asked, r.Progress.Step)
	if err != nil {
		return nil, err
	}
	if len(answers) != len(asked) {
		return nil, fmt.Errorf("%d measurements were asked for, and there are %d", len(asked), len(answers))
	}
	each := time.Since(begun) / time.Duration(len(asked))
	out := make([][]load.Figures, len(due))
	for i, w := range due {
		w.took = time.Duration(len(w.cells)) * each
		for _, c := range w.cells {
			if err := r.fails(c, answers[0].Err); err != nil {
				return nil, err
			}
			out[i], answers = append(out[i], answers[0].Figures), answers[1:]
		}
	}
	return out, nil
}

func (r *run) measure(ctx context.Context, c Case, at *cell) (load.Figures, error) {
	j := c.Job
	j.Client, j.Server, j.To, j.Port = at.ends.Client, at.ends.Server, at.ends.To, at.ends.Port
	watch := at.bed.Watch()
	before, err := watch.Read()
	if err != nil {
		return nil, err
	}
	f, err := r.Runner.Run(ctx, j)
	if err != nil {
		return nil, err
	}
	after, err := watch.Read()
	if err != nil {
		return nil, err
	}
	WithCost(f, after.Since(before), j)
	return f, nil
}

// add puts a round's figures into the row's series.
func (w *row) add(figures []load.Figures) {
	for i, f := range figures {
		for _, name := range order(f) {
			w.metric(i, name).add(f[name], w.rounds)
		}
	}
	w.rounds++
}

type metric report.Metric

// metric finds a metric of a series, or begins it.
func (w *row) metric(i int, name string) *metric {
	s := &w.series[i]
	at := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == name })
	if at < 0 {
		meaning, _ := load.Means(name)
		s.Metrics = append(s.Metrics, report.Metric{Name: name, Unit: meaning.Unit, Better: report.Better(meaning.Better)})
		at = len(s.Metrics) - 1
	}
	return (*metric)(&s.Metrics[at])
}

// add appends a round's figure; rounds before that gave none are null.
func (m *metric) add(v float64, round int) {
	for len(m.Rounds) < round {
		m.Rounds = append(m.Rounds, nil)
	}
	m.Rounds = append(m.Rounds, &v)
}

// pad marks rounds that gave no figure at the end.
func (w *row) pad() {
	for i := range w.series {
		for j := range w.series[i].Metrics {
			m := &w.series[i].Metrics[j]
			for len(m.Rounds) < w.rounds {
				m.Rounds = append(m.Rounds, nil)
			}
		}
	}
}

// doubts warns of what happened on the way.
func (r *run) doubts() {
	warn := func(format string, args ...any) {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf(format, args...))
	}
	if r.repeated > 0 {
		warn("the hypervisor took over %.0f %% of the CPUs' time during a case, and it was measured again: %s", 100*muchSteal, times(r.repeated))
	}
	if len(r.noisy) > 0 {
		warn("the hypervisor took much of the CPUs' time (in brackets) during %s", some(r.noisy))
	}
	if len(r.failures) > 0 {
		warn("measurements that failed have no figure, %s: %s", times(len(r.failures)), some(r.failures))
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// some lists the first few.
func some(of []string) string {
	const few = 3
	if len(of) > few {
		return strings.Join(of[:few], "; ") + fmt.Sprintf("; and %d more", len(of)-few)
	}
	return strings.Join(of, "; ")
}
