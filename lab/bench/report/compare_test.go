package report

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// made is a report of so many metrics, whose rounds come from draw.
func made(metrics, n int, draw func(metric, round int) float64) *Report {
	r := &Report{}
	for i := range metrics {
		m := Metric{Name: "throughput", Unit: "bit/s", Better: Higher}
		if i%2 == 1 {
			m = Metric{Name: "p99", Unit: "s", Better: Lower}
		}
		for j := range n {
			v := draw(i, j)
			m.Rounds = append(m.Rounds, &v)
		}
		r.Series = append(r.Series, Series{Variant: "v" + string(rune('A'+i)), Workload: "tcp-stream", Path: "other-node", Metrics: []Metric{m}})
	}
	r.Conclude("")
	return r
}

// Reports of the same thing differ in anything in at most 5 % of comparisons,
// however many metrics they have: of 400 at most 33, which chance exceeds once
// in 300 at 5 %. Skewed noise, and noise that gives ties.
func TestNoFalseAlarms(t *testing.T) {
	t.Parallel()
	for name, noise := range map[string]func(*rand.Rand) float64{
		"lognormal": func(r *rand.Rand) float64 { return 1e9 * math.Exp(0.3*r.NormFloat64()) },
		"ties":      func(r *rand.Rand) float64 { return float64(1 + r.IntN(4)) },
	} {
		rng := rand.New(rand.NewPCG(5, 6))
		draw := func(int, int) float64 { return noise(rng) }
		for _, metrics := range []int{1, 20} {
			alarms, worse := 0, 0
			for range 400 {
				c := Compare(quick(metrics, 8, draw), quick(metrics, 8, draw), 0)
				if c.Count(Slower)+c.Count(Faster) > 0 {
					alarms++
				}
				if c.Worse() {
					worse++
				}
			}
			t.Logf("%s, %d metrics: %d of 400 comparisons alarm, %d of them of slowness", name, metrics, alarms, worse)
			if alarms > 33 {
				t.Errorf("%s, %d metrics: %d of 400 comparisons of the same thing found a difference", name, metrics, alarms)
			}
		}
	}
}

// quick is made without the bootstrap, which Compare does not use.
func quick(metrics, n int, draw func(metric, round int) float64) *Report {
	r := made(metrics, 0, nil)
	for i := range r.Series {
		m := &r.Series[i].Metrics[0]
		for j := range n {
			v := draw(i, j)
			m.Rounds = append(m.Rounds, &v)
		}
		m.Summary = Summary{Median: *m.Rounds[0], N: n}
	}
	return r
}

// One metric of twenty falls by 10 %, with 2 % of noise: it is found in (nearly)
// every comparison, and its change is named rightly.
func TestTenPercentAreFound(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(8, 9))
	noise := func(int, int) float64 { return 1e9 * (1 + 0.02*rng.NormFloat64()) }
	slower := func(i, j int) float64 {
		if i == 4 {
			return 0.9 * noise(i, j)
		}
		return noise(i, j)
	}
	found, enclosed := 0, 0
	for range 200 {
		c := Compare(quick(20, 9, noise), quick(20, 9, slower), 0)
		f := c.Findings[4]
		if f.Verdict == Slower && c.Worse() {
			found++
		}
		if f.Change.Low <= 0.9 && 0.9 <= f.Change.High {
			enclosed++
		}
	}
	t.Logf("found %d of 200, the interval of the change has it in %d", found, enclosed)
	if found < 190 {
		t.Errorf("a fall by 10 %% was found in %d of 200 comparisons", found)
	}
	if enclosed < 183 { // 95 % less two and a half standard errors
		t.Errorf("the interval of the change encloses 0.9 in %d of 200", enclosed)
	}
}

// Higher throughput is faster, higher latency slower.
func TestDirection(t *testing.T) {
	t.Parallel()
	base := func(_, j int) float64 { return 100 + float64(j) }
	double := func(_, j int) float64 { return 200 + float64(j) }
	a, b := made(2, 8, base), made(2, 8, double)
	up, down := Compare(a, b, 0), Compare(b, a, 0)
	for i, want := range []Verdict{Faster, Slower} {
		if got := up.Findings[i].Verdict; got != want {
			t.Errorf("%s doubled: %s, want %s", up.Findings[i].Metric, got, want)
		}
	}
	for i, want := range []Verdict{Slower, Faster} {
		if got := down.Findings[i].Verdict; got != want {
			t.Errorf("%s halved: %s, want %s", down.Findings[i].Metric, got, want)
		}
	}
	// All rounds apart, eight against eight: two of 12,870 ways to deal them out.
	if p := up.Findings[0].P; math.Abs(p-2.0/12870) > 1e-9 {
		t.Errorf("p = %g", p)
	}
	if p := up.Findings[0].Adjusted; math.Abs(p-4.0/12870) > 1e-9 {
		t.Errorf("corrected for two metrics p = %g", p)
	}
}

// A difference can be certain and too small to care.
func TestLeast(t *testing.T) {
	t.Parallel()
	a := made(1, 8, func(_, j int) float64 { return 1000 + float64(j)/10 })
	b := made(1, 8, func(_, j int) float64 { return 990 + float64(j)/10 })
	if got := Compare(a, b, 0).Findings[0].Verdict; got != Slower {
		t.Errorf("1 %%: %s", got)
	}
	c := Compare(a, b, 0.03)
	if f := c.Findings[0]; f.Verdict != NoEvidence || !strings.Contains(f.Why, "smaller than 3 %") || c.Worse() {
		t.Errorf("1 %% where 3 %% are asked for: %+v", f)
	}
}

// Three rounds cannot show anything (1 of 10 at best), and many metrics need
// more rounds than few: 20 metrics need 6, since 2/924·20 is below 5 %.
func TestTooFewRoundsAreNamed(t *testing.T) {
	t.Parallel()
	low, high := func(_, j int) float64 { return 1 + float64(j) }, func(_, j int) float64 { return 100 + float64(j) }
	if f := Compare(made(1, 3, low), made(1, 3, high), 0).Findings[0]; f.Verdict != NoEvidence || !strings.Contains(f.Why, "cannot show") {
		t.Errorf("%+v", f)
	}
	if f := Compare(made(20, 5, low), made(20, 5, high), 0).Findings[0]; f.Verdict != NoEvidence || !strings.Contains(f.Why, "6 each would") {
		t.Errorf("%+v", f)
	}
	if f := Compare(made(20, 6, low), made(20, 6, high), 0).Findings[0]; f.Verdict != Faster {
		t.Errorf("%+v", f)
	}
}

// Holm's correction by hand: p 0.01, 0.04, 0.03 become 0.03, 0.06, 0.06.
func TestHolm(t *testing.T) {
	t.Parallel()
	c := &Comparison{}
	for _, p := range []float64{0.01, 0.04, 0.03} {
		c.Findings = append(c.Findings, Finding{Verdict: NoEvidence, P: p, tested: true, aRounds: make([]float64, 9), bRounds: make([]float64, 9)})
	}
	c.judge(0)
	for i, want := range []float64{0.03, 0.06, 0.06} {
		if got := c.Findings[i].Adjusted; math.Abs(got-want) > 1e-12 {
			t.Errorf("%g: %g, want %g", c.Findings[i].P, got, want)
		}
	}
}

// What only one side has is named, conditions that differ warn, and counts are
// left out.
func TestSidesDiffer(t *testing.T) {
	t.Parallel()
	a, b := fixture(), fixture()
	a.Series = slices.Delete(a.Series, 2, 3) // calico-bgp
	b.Series = slices.Delete(b.Series, 3, 4) // loopback
	b.Series[1].Params = map[string]string{"write": "1MiB", "streams": "1"}
	b.Series[0].Metrics = b.Series[0].Metrics[:1] // vxlan without p99
	b.Series[0].MTU = 1400
	b.Conditions.Kernel, b.Conditions.CPU, b.Conditions.StealPercent = "6.19.0", "Xeon", 30
	c := Compare(a, b, 0)
	var got []string
	for _, f := range c.Findings {
		got = append(got, strings.TrimSpace(string(f.Verdict)+": "+f.Variant+" "+f.Metric))
	}
	want := []string{
		"no evidence: flannel-vxlan throughput", "only in A: flannel-vxlan p99",
		"only in A: flannel-host-gw", "only in A: loopback", "only in B: flannel-host-gw", "only in B: calico-bgp",
	}
	if !slices.Equal(got, want) {
		t.Errorf("findings %q, want %q", got, want)
	}
	warned := strings.Join(c.Warnings, "\n")
	for _, w := range []string{"kernel differs: 6.18.0 and 6.19.0", "CPU differs: EPYC and Xeon", "MTU of flannel-vxlan, tcp-stream", "1450 and 1400", "B: the hypervisor took 30.0 %"} {
		if !strings.Contains(warned, w) {
			t.Errorf("no warning of %q in:\n%s", w, warned)
		}
	}
	var b1 bytes.Buffer
	if err := c.Text(&b1); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"only in B: calico-bgp, tcp-stream", "0 slower, 0 faster, 1 without evidence"} {
		if !strings.Contains(b1.String(), w) {
			t.Errorf("no %q in:\n%s", w, b1.String())
		}
	}
	if c.Worse() {
		t.Error("what is missing counts as slower")
	}
}
