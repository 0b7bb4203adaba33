package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// distributions have known medians: skewed as latencies are, with two humps as
// figures of a shared machine are, and with heavy tails.
var distributions = map[string]struct {
	draw   func(*rand.Rand) float64
	median float64
}{
	"lognormal": {func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()) }, 1},
	"two humps": {func(r *rand.Rand) float64 {
		if r.IntN(3) == 0 { // a third around 8: the median is the ¼-quantile of the upper hump
			return 8 + 0.1*r.NormFloat64()
		}
		return 10 + r.NormFloat64()
	}, 10 - 0.67449},
	"cauchy": {func(r *rand.Rand) float64 { return 5 + math.Tan(math.Pi*(r.Float64()-0.5)) }, 5},
}

// The interval encloses the true median in 95 % of all samples, less what the
// the steps of few rounds (93.5 % of eleven, ADR 17) and the chance of this
// simulation (standard error 1.2 %) take away.
func TestIntervalCovers(t *testing.T) {
	t.Parallel()
	const samples = 400
	for name, d := range distributions {
		for _, n := range []int{6, 7, 11, 20} {
			rng := rand.New(rand.NewPCG(1, uint64(n)))
			hit := 0
			for range samples {
				s := Summarize(drawn(rng, n, d.draw), 3)
				if s.Low <= d.median && d.median <= s.High {
					hit++
				}
			}
			share := float64(hit) / samples
			t.Logf("%s, %d rounds: %.3f", name, n, share)
			if share < 0.91 {
				t.Errorf("%s, %d rounds: the interval encloses the median in %.1f %% of samples", name, n, 100*share)
			}
		}
	}
}

func drawn(rng *rand.Rand, n int, draw func(*rand.Rand) float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = draw(rng)
	}
	return v
}

// With fewer than six rounds the interval is all of them, which miss the true
// median if all fall on one side of it: 2·2⁻ⁿ.
func TestFewRoundsSaySo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rounds []float64
		want   Summary
	}{
		{nil, Summary{}},
		{[]float64{3}, Summary{Median: 3, Low: 3, High: 3, Confidence: 0, N: 1}},
		{[]float64{3, 1}, Summary{Median: 2, Low: 1, High: 3, Confidence: 0.5, N: 2}},
		{[]float64{3, 1, 9}, Summary{Median: 3, Low: 1, High: 9, Confidence: 0.75, N: 3}},
		{[]float64{5, 3, 1, 9, 4}, Summary{Median: 4, Low: 1, High: 9, Confidence: 0.9375, N: 5}},
	} {
		if diff := cmp.Diff(c.want, Summarize(c.rounds, 1)); diff != "" {
			t.Errorf("%v: %s", c.rounds, diff)
		}
	}
}

// The seed decides, the order of rounds does not, and the rounds stay as they are.
func TestSummarizeIsDeterministic(t *testing.T) {
	t.Parallel()
	v := []float64{5, 3, 8, 1, 9, 7, 2, 6}
	kept := slices.Clone(v)
	a := Summarize(v, 42)
	if !slices.Equal(v, kept) {
		t.Error("the rounds were sorted in place")
	}
	slices.Reverse(kept)
	if b := Summarize(kept, 42); a != b {
		t.Errorf("%+v and %+v", a, b)
	}
	if a.Median != 5.5 || a.Low < 1 || a.High > 9 || a.Low >= a.Median || a.High <= a.Median || a.Confidence != 0.95 {
		t.Errorf("%+v", a)
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    Summary
		want bool
	}{
		{Summary{Median: 100, Low: 96, High: 105, Confidence: 0.95, N: 8}, true},
		{Summary{Median: 100, Low: 96, High: 106, Confidence: 0.95, N: 8}, false},
		{Summary{Median: 100, Low: 94, High: 101, Confidence: 0.95, N: 8}, false},
		{Summary{Median: 100, Low: 100, High: 100, Confidence: 0.9375, N: 5}, false}, // too few to know
		{Summary{Median: 0, Low: 0, High: 0, Confidence: 0.95, N: 6}, true},          // nothing was ever lost
		{Summary{Median: 0, Low: 0, High: 1, Confidence: 0.95, N: 6}, false},
		{Summary{}, false},
	} {
		if got := Narrow(c.s, 0.05); got != c.want {
			t.Errorf("%+v: %v", c.s, got)
		}
	}
}

// A ratio needs both figures of its round, and something to divide by.
func TestRatios(t *testing.T) {
	t.Parallel()
	got := Ratios(rounds(10, 20, -1, 40, 50, 60), rounds(20, 0, 5, -1, 25))
	if diff := cmp.Diff(rounds(0.5, -1, -1, -1, 2, -1), got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{0.5, 2}, Values(got)); diff != "" {
		t.Error(diff)
	}
}

// Ratios are of the same round: what slows a round down slows its control, too,
// and the ratio's interval stays narrow where the figures' is wide.
func TestConcludePairsRounds(t *testing.T) {
	t.Parallel()
	r := fixture()
	m := r.Series[0].Metrics[0]
	want := Summary{Median: 0.5, Low: 0.5, High: 0.5, Confidence: 0.95, N: 8}
	if m.Ratio == nil || *m.Ratio != want || m.Control != "flannel-host-gw" {
		t.Errorf("ratio %+v to %q", m.Ratio, m.Control)
	}
	if s := m.Summary; s.Median != 20e9 || s.Low >= 20e9 || s.High <= 20e9 {
		t.Errorf("%+v", s)
	}
	if latency := r.Series[0].Metrics[1]; latency.Summary.N != 7 || latency.Ratio.N != 7 {
		t.Errorf("a round without a figure counts: %+v", latency.Summary)
	}
	if count := r.Series[0].Metrics[2]; count.Ratio != nil {
		t.Error("a count has a ratio")
	}
	if other := r.Series[3].Metrics[0]; other.Ratio != nil {
		t.Error("another path has a ratio")
	}
	if len(r.Warnings) != 2 { // three rounds of loopback, one lost round of vxlan
		t.Errorf("%q", r.Warnings)
	}
	before := len(r.Warnings)
	if r.Conclude("flannel-host-gw"); len(r.Warnings) != before {
		t.Error("concluding twice warns twice")
	}
}

func TestWarningsOfConditions(t *testing.T) {
	t.Parallel()
	quiet := Conditions{CPUs: 4, LoadBefore: 0.3, StealPercent: 0.5, IdlePercent: 40}
	for name, c := range map[string]struct {
		change func(*Conditions)
		want   int
	}{
		"quiet": {func(*Conditions) {}, 0},
		"steal": {func(c *Conditions) { c.StealPercent = 8 }, 1},
		"load":  {func(c *Conditions) { c.LoadBefore = 1.5 }, 1},
		"idle":  {func(c *Conditions) { c.IdlePercent = 0.5 }, 1},
		"all":   {func(c *Conditions) { c.StealPercent, c.LoadBefore, c.IdlePercent = 9, 9, 0 }, 3},
	} {
		is := quiet
		c.change(&is)
		if got := is.Warnings(); len(got) != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
