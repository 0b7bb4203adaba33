package report

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/aclements/go-moremath/mathx"
	"github.com/aclements/go-moremath/stats"
)

// Verdict is what a comparison says of one metric.
type Verdict string

// The verdicts, of the second report against the first.
const (
	Slower     Verdict = "slower"
	Faster     Verdict = "faster"
	NoEvidence Verdict = "no evidence"
	OnlyA      Verdict = "only in A"
	OnlyB      Verdict = "only in B"
)

// familyError is the probability that reports of the same make show any
// difference at all, over all their metrics.
const familyError = 1 - wantedConfidence

// Finding is one metric in two reports. Of a series or metric that only one has
// there is no more than its name; a series that is missing as a whole has none.
type Finding struct {
	Verdict  Verdict           `json:"verdict"`
	Variant  string            `json:"variant"`
	Workload string            `json:"workload"`
	Path     string            `json:"path"`
	Target   string            `json:"target"`
	Params   map[string]string `json:"params,omitempty"`
	Metric   string            `json:"metric,omitempty"`
	Unit     string            `json:"unit,omitempty"`
	Better   Better            `json:"better,omitempty"`
	A        *Summary          `json:"a,omitempty"`
	B        *Summary          `json:"b,omitempty"`
	// Change is B's figure over A's, with the interval of this metric alone; nil
	// where a figure is zero or negative.
	Change *Summary `json:"change,omitempty"`
	// P is the probability of so clear a difference by chance, in this metric
	// alone and (Adjusted) in any of those that were tested.
	P        float64 `json:"p,omitempty"`
	Adjusted float64 `json:"adjusted,omitempty"`
	// Why says why there is no evidence where rounds could not have given any.
	Why string `json:"why,omitempty"`

	aRounds, bRounds []float64
	tested, larger   bool // larger: B's rounds tend to be
	series           *Series
}

// Comparison is what two reports say of each other.
type Comparison struct {
	Findings []Finding `json:"findings"`
	// Warnings are conditions that differ, apart from what was to be compared.
	Warnings []string `json:"warnings,omitempty"`
	// Tested is how many metrics the correction is for.
	Tested int `json:"tested"`
}

// Worse reports whether anything is slower.
func (c *Comparison) Worse() bool { return c.Count(Slower) > 0 }

// Count is how many findings have a verdict.
func (c *Comparison) Count(v Verdict) (n int) {
	for _, f := range c.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Compare says of every metric that both reports have, in the same variant,
// workload, path, target and params, whether b is faster or slower than a:
// Mann-Whitney's exact test of the rounds, with Holm's correction over all
// metrics, so that reports of the same make differ in anything at all with a
// probability of at most 5 %. A difference smaller than least (0.03: three
// percent) is none. Metrics without a direction are left out, and so are parts of
// a sum, which is compared.
// docs/adr/0017-bench-statistics.md has the reasons.
func Compare(a, b *Report, least float64) *Comparison {
	c := &Comparison{Warnings: differing(a, b)}
	for i := range a.Series {
		sa := &a.Series[i]
		if sb := b.find(sa.Variant, sa); sb != nil {
			c.series(sa, sb)
		} else {
			c.Findings = append(c.Findings, about(sa, OnlyA))
		}
	}
	for i := range b.Series {
		if sb := &b.Series[i]; a.find(sb.Variant, sb) == nil {
			c.Findings = append(c.Findings, about(sb, OnlyB))
		}
	}
	c.judge(least)
	return c
}

func about(s *Series, v Verdict) Finding {
	return Finding{Verdict: v, Variant: s.Variant, Workload: s.Workload, Path: s.Path, Target: s.Target, Params: s.Params, series: s}
}

// series adds the metrics of a series that both reports have.
func (c *Comparison) series(a, b *Series) {
	for i := range a.Metrics {
		ma := &a.Metrics[i]
		mb := b.metric(ma.Name)
		switch {
		case ma.Better == Neither || ma.isPart():
		case mb == nil || mb.Unit != ma.Unit || mb.Better != ma.Better:
			c.Findings = append(c.Findings, only(a, ma, OnlyA))
		default:
			f := only(a, ma, NoEvidence)
			f.A, f.B, f.aRounds, f.bRounds = &ma.Summary, &mb.Summary, Values(ma.Rounds), Values(mb.Rounds)
			f.test()
			c.Findings = append(c.Findings, f)
		}
	}
	for i := range b.Metrics {
		mb := &b.Metrics[i]
		if ma := a.metric(mb.Name); mb.Better != Neither && !mb.isPart() && (ma == nil || mb.Unit != ma.Unit || mb.Better != ma.Better) {
			c.Findings = append(c.Findings, only(b, mb, OnlyB))
		}
	}
}

func only(s *Series, m *Metric, v Verdict) Finding {
	f := about(s, v)
	f.Metric, f.Unit, f.Better = m.Name, m.Unit, m.Better
	return f
}

// test computes the probability of the difference by chance. A metric that
// could not differ significantly whatever its rounds were is not tested, which
// leaves more for the others.
func (f *Finding) test() {
	n, m := len(f.aRounds), len(f.bRounds)
	switch {
	case n == 0 || m == 0:
		f.Why = "no round gave a figure"
		return
	case smallestP(n, m) > familyError:
		f.Why = fmt.Sprintf("%d against %d rounds cannot show a difference", n, m)
		return
	}
	f.Change = change(f.aRounds, f.bRounds)
	r, err := stats.MannWhitneyUTest(f.aRounds, f.bRounds, stats.LocationDiffers)
	if errors.Is(err, stats.ErrSamplesEqual) {
		f.Why = "all rounds are the same"
		return
	}
	f.tested, f.P, f.larger = true, min(1, r.P), r.U < float64(n*m)/2
}

// smallestP is what the exact test of so many rounds can give at best: both
// sides are apart altogether, which is two of all ways to deal them out.
func smallestP(n, m int) float64 { return 2 / mathx.Choose(n+m, n) }

// judge corrects for the number of metrics and gives the verdicts.
func (c *Comparison) judge(least float64) {
	var tested []*Finding
	for i := range c.Findings {
		if f := &c.Findings[i]; f.tested {
			tested = append(tested, f)
		}
	}
	c.Tested = len(tested)
	slices.SortStableFunc(tested, func(a, b *Finding) int { return cmp.Compare(a.P, b.P) })
	last := 0.0
	for i, f := range tested { // Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979
		last = max(last, min(1, f.P*float64(len(tested)-i)))
		f.Adjusted = last
		f.decide(least)
		if floor := smallestP(len(f.aRounds), len(f.bRounds)); f.Verdict == NoEvidence && floor*float64(len(tested)) > familyError {
			f.Why = fmt.Sprintf("%d against %d rounds show little among %d metrics: %d each would", len(f.aRounds), len(f.bRounds), len(tested), enough(len(tested)))
		}
	}
}

// enough is how many rounds on each side can show a difference in one of so
// many metrics.
func enough(metrics int) int {
	n := 2
	for smallestP(n, n)*float64(metrics) > familyError {
		n++
	}
	return n
}

func (f *Finding) decide(least float64) {
	small := f.Change != nil && math.Abs(f.Change.Median-1) < least
	switch {
	case f.Adjusted > familyError:
		return
	case small:
		f.Why = fmt.Sprintf("a difference smaller than %g %%", 100*least)
	case f.larger == (f.Better == Higher):
		f.Verdict = Faster
	default:
		f.Verdict = Slower
	}
}

// change is the Hodges–Lehmann estimate of b over a: the median of all ratios of
// a round of b to one of a, and between which of them the true ratio lies, which
// are the ratios that the exact test would not refuse (Hollander, Wolfe and
// Chicken, Nonparametric Statistical Methods, §4.3, on logarithms).
func change(a, b []float64) *Summary {
	var all []float64
	for _, x := range a {
		for _, y := range b {
			if x <= 0 || y <= 0 {
				return nil
			}
			all = append(all, y/x)
		}
	}
	slices.Sort(all)
	n := len(all)
	k, confidence := cut(len(a), len(b))
	return &Summary{Median: (all[(n-1)/2] + all[n/2]) / 2, Low: all[k-1], High: all[n-k], Confidence: confidence, N: min(len(a), len(b))}
}

// exactRounds is up to how many rounds on a side the distribution of U is
// counted out; from there on it is close to normal.
const exactRounds = 25

// cut is which of the ordered ratios, counted from either end, bound the
// interval of 95 % or the widest that there is, and its confidence.
func cut(n, m int) (k int, confidence float64) {
	below := func(u float64) float64 { return stats.UDist{N1: n, N2: m}.CDF(u) }
	if max(n, m) > exactRounds {
		sigma := math.Sqrt(float64(n*m*(n+m+1)) / 12)
		normal := stats.NormalDist{Mu: float64(n*m) / 2, Sigma: sigma}
		below = func(u float64) float64 { return normal.CDF(u + 0.5) }
	}
	k = 1
	for k < n*m/2 && 2*below(float64(k)) <= familyError {
		k++
	}
	return k, max(0, 1-2*below(float64(k-1)))
}

// differing are conditions that make a comparison doubtful.
func differing(a, b *Report) (out []string) {
	note := func(what string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s differs: %v and %v", what, a, b))
		}
	}
	ca, cb := a.Conditions, b.Conditions
	note("the running lab", cmp.Or(ca.Lab, "none"), cmp.Or(cb.Lab, "none"))
	note("the cluster", cmp.Or(ca.Cluster, "none"), cmp.Or(cb.Cluster, "none"))
	note("the kernel", ca.Kernel, cb.Kernel)
	note("the CPU", ca.CPU, cb.CPU)
	note("the number of CPUs", ca.CPUs, cb.CPUs)
	note("the generator", ca.Generator, cb.Generator)
	note("the length of a measurement (ns)", a.Plan.RoundNs, b.Plan.RoundNs)
	note("the warm-up (ns)", a.Plan.WarmUpNs, b.Plan.WarmUpNs)
	for i := range a.Series {
		if s, t := &a.Series[i], b.find(a.Series[i].Variant, &a.Series[i]); t != nil {
			note("the MTU of "+s.Variant+", "+s.title(), s.MTU, t.MTU)
			note("offloads of "+s.Variant+", "+s.title(), s.Offloads, t.Offloads)
		}
	}
	for i, r := range []*Report{a, b} {
		name := string(rune('A' + i))
		for _, w := range r.Conditions.Warnings() {
			out = append(out, name+": "+w)
		}
		if r.Partial {
			out = append(out, name+": the run was cut off")
		}
	}
	return out
}
