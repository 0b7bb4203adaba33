package report

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"gonum.org/v1/gonum/stat/distuv"
)

const (
	// wantedConfidence is what an interval has if the rounds allow it.
	wantedConfidence = 0.95
	// resamples is how often the bootstrap draws: enough that the ends of the
	// interval do not depend on the seed in the third digit.
	resamples = 10_000
	// fewestRounds is from where on 95 % can be had at all: the smallest and the
	// largest of five values miss the true median with probability 2·2⁻⁵.
	fewestRounds = 6
)

// Summarize computes the median of rounds (finite figures, in any order) and its
// interval; the same seed gives the same interval.
//
// From six rounds on the interval is the bootstrap's, by the expanded percentile
// method (Hesterberg, What Teachers Should Know About the Bootstrap, 2015,
// §5.3): the plain percentiles of so few values are too narrow, for a median of
// seven 87 % instead of 95 %. With fewer rounds it is all of them, and
// Confidence says with what probability they enclose the true median; of one
// round it is zero. docs/adr/0017-bench-statistics.md has the reasons.
func Summarize(rounds []float64, seed uint64) Summary {
	n := len(rounds)
	if n == 0 {
		return Summary{}
	}
	v := slices.Sorted(slices.Values(rounds))
	s := Summary{Median: (v[(n-1)/2] + v[n/2]) / 2, N: n}
	if n < fewestRounds {
		s.Low, s.High, s.Confidence = v[0], v[n-1], 1-math.Pow(2, float64(1-n))
		return s
	}
	medians := bootstrap(v, seed)
	tail := expandedTail(n)
	s.Low, s.High, s.Confidence = quantile(medians, tail), quantile(medians, 1-tail), wantedConfidence
	return s
}

// weighed is a value and how often it was drawn.
type weighed struct {
	value float64
	times int
}

// bootstrap draws n of sorted's n values, with putting back, again and again,
// and returns the medians of the draws in order.
func bootstrap(sorted []float64, seed uint64) []weighed {
	var out []weighed
	for between, times := range middles(len(sorted), seed) {
		out = append(out, weighed{(sorted[between[0]] + sorted[between[1]]) / 2, times})
	}
	slices.SortFunc(out, func(a, b weighed) int { return cmp.Compare(a.value, b.value) })
	return out
}

// drawing are the draws of so many values by a seed.
type drawing struct {
	n    int
	seed uint64
}

// knownDraws has what middles gave, map[[2]int]int by drawing: a report has thousands
// of metrics of the same number of rounds.
var knownDraws sync.Map

// middles are the places, among n sorted values, of the two in the middle of each
// draw, and how often each two were. They depend on no value.
func middles(n int, seed uint64) map[[2]int]int {
	if known, ok := knownDraws.Load(drawing{n, seed}); ok {
		return known.(map[[2]int]int)
	}
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	out, times := map[[2]int]int{}, make([]int, n)
	for range resamples {
		clear(times)
		for range n {
			times[rng.IntN(n)]++
		}
		out[[2]int{nth(times, (n-1)/2), nth(times, n/2)}]++
	}
	knownDraws.Store(drawing{n, seed}, out)
	return out
}

// nth is the index of the k-th (from zero) of the values drawn, in order.
func nth(drawn []int, k int) int {
	for i, times := range drawn {
		if k < times {
			return i
		}
		k -= times
	}
	return len(drawn) - 1
}

// expandedTail is the share of the bootstrap's medians left out at each end:
// Φ(−√(n/(n−1))·t), t the quantile of Student's distribution of n−1 degrees.
func expandedTail(n int) float64 {
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(n - 1)}.Quantile((1 + wantedConfidence) / 2)
	return distuv.UnitNormal.CDF(-math.Sqrt(float64(n)/float64(n-1)) * t)
}

// quantile of sorted values, by the nearest rank outwards.
func quantile(sorted []weighed, p float64) float64 {
	at := p * (resamples - 1)
	rank := int(math.Ceil(at))
	if p < 0.5 {
		rank = int(math.Floor(at))
	}
	for _, w := range sorted {
		if rank < w.times {
			return w.value
		}
		rank -= w.times
	}
	return sorted[len(sorted)-1].value
}

// Narrow reports whether the interval reaches at most rel (0.05: five percent)
// of the median to either side, with 95 % confidence: no more rounds are needed.
func Narrow(s Summary, rel float64) bool {
	if s.Confidence < wantedConfidence {
		return false
	}
	return max(s.High-s.Median, s.Median-s.Low) <= rel*math.Abs(s.Median)
}

// Values are the figures of the rounds that gave one.
func Values(rounds []*float64) []float64 {
	var out []float64
	for _, v := range rounds {
		if v != nil {
			out = append(out, *v)
		}
	}
	return out
}

// Ratios divides each round's figure by the control's of the same round. A round
// that either lacks, or in which the control's is zero, has none.
func Ratios(rounds, control []*float64) []*float64 {
	out := make([]*float64, len(rounds))
	for i, v := range rounds {
		if v == nil || i >= len(control) || control[i] == nil || *control[i] == 0 {
			continue
		}
		r := *v / *control[i]
		out[i] = &r
	}
	return out
}
