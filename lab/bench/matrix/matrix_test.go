package matrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
)

// bed has the paths that it lists.
type bed struct {
	name  string
	paths []string
}

func (b bed) Name() string { return b.name }
func (b bed) Ends(path, _ string) (Ends, bool) {
	return Ends{Client: load.Place{Label: b.name}, Server: load.Place{Label: path}}, slices.Contains(b.paths, path)
}
func (b bed) Watch() load.Watch           { return load.Watch{} }
func (b bed) Close(context.Context) error { return nil }

// tool takes the time of a job and gives figures; it remembers what it ran.
type tool struct {
	ran    []string // "tcp-stream b"
	figure func(n int, j load.Job) (load.Figures, error)
}

func (t *tool) Run(ctx context.Context, j load.Job) (load.Figures, error) {
	t.ran = append(t.ran, j.Workload+" "+j.Client.Label)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(j.WarmUp + j.Duration):
	}
	return t.figure(len(t.ran), j)
}

func steady(int, load.Job) (load.Figures, error) { return load.Figures{load.Throughput: 1e9}, nil }

// quiet is a machine of which nothing is stolen.
func quiet() (CPUTimes, error) { return CPUTimes{Total: uint64(time.Now().UnixMilli())}, nil }

var (
	both   = []Bed{bed{"a", []string{OtherNode, SameNode}}, bed{"b", []string{OtherNode}}, bed{"c", []string{OtherNode}}}
	stream = Case{Path: OtherNode, Main: load.Throughput, Job: load.Job{Workload: load.TCPStream, Duration: time.Second}}
	near   = Case{Path: SameNode, Main: load.Throughput, Job: load.Job{Workload: load.TCPRequests, Duration: time.Second}}
)

// measure runs in a bubble of its own time.
func measure(t *testing.T, o Options, runner *tool, cases ...Case) (r *report.Report, err error) {
	t.Helper()
	o.Runner, o.Seed, o.Control = runner, 1, "a"
	if o.CPUTimes == nil {
		o.CPUTimes = quiet
	}
	synctest.Test(t, func(t *testing.T) { r, err = Run(t.Context(), o, both, cases) })
	return r, err
}

func series(t *testing.T, r *report.Report, variant, workload string) report.Series {
	t.Helper()
	for _, s := range r.Series {
		if s.Variant == variant && s.Workload == workload {
			return s
		}
	}
	t.Fatalf("no series of %s in %s", workload, variant)
	return report.Series{}
}

// Every round measures each case in all beds that have it, one right after the
// other, in an order that changes.
func TestRoundsAreInterleaved(t *testing.T) {
	runner := &tool{figure: steady}
	r, err := measure(t, Options{Rounds: 8}, runner, stream, near)
	if err != nil {
		t.Fatal(err)
	}
	orders := map[string]bool{}
	for round := range 8 {
		got := slices.Clone(runner.ran[4*round : 4*round+4])
		orders[strings.Join(got[:3], ",")] = true
		slices.Sort(got[:3])
		want := []string{"tcp-stream a", "tcp-stream b", "tcp-stream c", "tcp-rr a"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("round %d (-want +got):\n%s", round, diff)
		}
	}
	if len(orders) < 2 {
		t.Errorf("the order of the beds never changed: %v", orders)
	}
	if len(r.Series) != 4 || r.Partial {
		t.Errorf("%d series, partial %t", len(r.Series), r.Partial)
	}
	again := &tool{figure: steady}
	if _, err := measure(t, Options{Rounds: 8}, again, stream, near); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(runner.ran, again.ran); diff != "" {
		t.Errorf("the same seed gives another order:\n%s", diff)
	}
}

// After the first rounds only what varies is measured again, until the last.
func TestOnlyWhatVariesGoesOn(t *testing.T) {
	runner := &tool{figure: func(n int, j load.Job) (load.Figures, error) {
		f := load.Figures{load.Throughput: 1e9}
		if j.Client.Label == "b" && j.Workload == load.TCPStream {
			f[load.Throughput] = 1e9 * float64(1+n%7)
		}
		return f, nil
	}}
	r, err := measure(t, Options{Rounds: 6, MaxRounds: 9}, runner, stream, near)
	if err != nil {
		t.Fatal(err)
	}
	for workload, want := range map[string]int{load.TCPStream: 9, load.TCPRequests: 6} {
		if got := len(series(t, r, "a", workload).Metrics[0].Rounds); got != want {
			t.Errorf("%s has %d rounds, want %d", workload, got, want)
		}
	}
}

// No round is begun that would end after the budget, and the report says that
// rounds are missing.
func TestBudgetIsKept(t *testing.T) {
	runner := &tool{figure: steady}
	r, err := measure(t, Options{Rounds: 6, Budget: 10 * time.Second}, runner, stream)
	if err != nil {
		t.Fatal(err)
	}
	// A round takes three seconds: the third ends at nine.
	if got := len(r.Series[0].Metrics[0].Rounds); got != 3 {
		t.Errorf("%d rounds in ten seconds, want 3", got)
	}
	if took := time.Duration(r.TookNs); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "used up after 3 rounds of 6") }) {
		t.Errorf("no warning of it: %q", r.Warnings)
	}
	if r.Partial {
		t.Error("a run that kept its budget is called cut off")
	}
}

// An interrupted run has the rounds that were complete.
func TestInterruptedRunHasWholeRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 7500*time.Millisecond) // in the third round
		defer cancel()
		r, err := Run(ctx, Options{Rounds: 6, Runner: &tool{figure: steady}, CPUTimes: quiet}, both, []Case{stream})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if !r.Partial {
			t.Error("not marked as partial")
		}
		for _, s := range r.Series {
			if got := len(s.Metrics[0].Rounds); got != 2 {
				t.Errorf("%s has %d rounds, want 2", s.Variant, got)
			}
		}
	})
}

// What failed once has no figure in its round, and is told of; what keeps failing
// ends the run.
func TestFailures(t *testing.T) {
	failing := func(times int) *tool {
		return &tool{figure: func(n int, j load.Job) (load.Figures, error) {
			if j.Client.Label == "b" && times > 0 {
				times--
				return nil, errors.New("no answer")
			}
			return steady(n, j)
		}}
	}
	r, err := measure(t, Options{Rounds: 4}, failing(1), stream)
	if err != nil {
		t.Fatal(err)
	}
	m := series(t, r, "b", load.TCPStream).Metrics[0]
	if len(m.Rounds) != 4 || m.Rounds[0] != nil || m.Summary.N != 3 {
		t.Errorf("rounds %v, summary of %d", m.Rounds, m.Summary.N)
	}
	if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "b: no answer") }) {
		t.Errorf("no warning of it: %q", r.Warnings)
	}
	r, err = measure(t, Options{Rounds: 4}, failing(3), stream)
	if err == nil || !strings.Contains(err.Error(), "b: no answer") {
		t.Errorf("error %v", err)
	}
	if !r.Partial || len(series(t, r, "a", load.TCPStream).Metrics[0].Rounds) != 2 {
		t.Errorf("partial %t with %d series", r.Partial, len(r.Series))
	}
}

// A case during which much was stolen is measured again, and the quieter one counts.
func TestStolenTimeIsMeasuredAgain(t *testing.T) {
	stolen := map[int]bool{3: true, 4: true} // measurements: the first of round 1 and of its repeat
	runner := &tool{}
	runner.figure = func(n int, _ load.Job) (load.Figures, error) { return load.Figures{load.Throughput: float64(n)}, nil }
	alone := stream
	alone.Only = []string{"a"}
	times := func() (CPUTimes, error) {
		c, _ := quiet()
		for n := range stolen {
			if len(runner.ran) >= n {
				c.Steal += uint64(n * 100) // of the second that a measurement takes: 300 and 400 ms
			}
		}
		return c, nil
	}
	r, err := measure(t, Options{Rounds: 12, CPUTimes: times}, runner, alone)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range series(t, r, "a", load.TCPStream).Metrics[0].Rounds {
		got = append(got, fmt.Sprint(*v))
	}
	if want := "1 2 3 5 6"; strings.Join(got[:5], " ") != want {
		t.Errorf("figures %v, want %s: the fourth stole more than the third", got, want)
	}
	for _, want := range []string{"measured again: once", "tcp-stream other-node in round 3 (30 %)"} {
		if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("no warning of %q: %q", want, r.Warnings)
		}
	}
}

// phases remembers what it is told.
type phases struct {
	names []string
	steps int
}

func (p *phases) Phase(name string, total int) {
	p.names = append(p.names, fmt.Sprintf("%s of %d", name, total))
}
func (p *phases) Step() { p.steps++ }

// What is told of the time that is left is what it takes.
func TestProgressTellsTheTimeLeft(t *testing.T) {
	told := &phases{}
	if _, err := measure(t, Options{Rounds: 2, MaxRounds: 4, Budget: 10 * time.Second, Progress: told}, &tool{figure: steady}, stream); err != nil {
		t.Fatal(err)
	}
	// Three beds of a second each, and of about 40 ms more before the first is known.
	want := []string{
		"round 1 of 2 to 4 (6s to 10s to go): of 3",
		"round 2 of 2 to 4 (3s to 7s to go): of 3",
		"round 3 of 2 to 4 (1 of 1 cases still vary; at most 4s to go): of 3",
	}
	if diff := cmp.Diff(want, told.names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if told.steps != 9 {
		t.Errorf("%d steps, want 9", told.steps)
	}
}

// The report has the plan, so that the run can be repeated.
func TestPlanOfTheReport(t *testing.T) {
	r, err := measure(t, Options{Rounds: 1, MaxRounds: 3, Budget: time.Minute}, &tool{figure: steady}, stream, near)
	if err != nil {
		t.Fatal(err)
	}
	want := report.Plan{
		Variants: []string{"a", "b", "c"}, Workloads: []string{load.TCPStream, load.TCPRequests}, Paths: []string{OtherNode, SameNode},
		Rounds: 1, MaxRounds: 3, RoundNs: time.Second.Nanoseconds(), BudgetNs: time.Minute.Nanoseconds(), Seed: 1,
	}
	if diff := cmp.Diff(want, r.Plan); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A budget that is too small for anything is told of, not an empty report.
func TestBudgetForNothing(t *testing.T) {
	runner := &tool{figure: steady}
	if _, err := measure(t, Options{Rounds: 1, Budget: time.Second}, runner, stream); err == nil || !strings.Contains(err.Error(), "not even one round") {
		t.Errorf("error %v", err)
	}
	if len(runner.ran) > 0 {
		t.Errorf("ran %v", runner.ran)
	}
}

// Nothing that beds have in common is an error, not an empty report.
func TestNothingToMeasure(t *testing.T) {
	if _, err := measure(t, Options{Rounds: 1}, &tool{}, Case{Path: OtherRack, Job: stream.Job}); err == nil {
		t.Error("no error")
	}
}
