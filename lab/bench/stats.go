package bench

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Summary is what several rounds say together.
type Summary struct {
	Median float64 `json:"median"`
	// Low and High enclose the true median with the probability Confidence,
	// whatever the distribution: they are order statistics of the rounds.
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"` // 0 to 1; below 0.95 with fewer than six rounds
	N          int     `json:"n"`
}

// wantedConfidence is what an interval should have if the rounds allow it.
const wantedConfidence = 0.95

// Summarize computes the median of rounds and the narrowest symmetric interval
// of order statistics that encloses the true median with a probability of at
// least 95 %. Of n values, the k-th smallest and the k-th largest enclose it
// unless fewer than k fall on one side: with probability 1 − 2·P(B ≤ k−1),
// where B is binomial(n, ½) (David and Nagaraja, Order Statistics, §7.1).
// With too few rounds for that the interval is all of them.
func Summarize(rounds []float64) Summary {
	n := len(rounds)
	if n == 0 {
		return Summary{}
	}
	v := slices.Sorted(slices.Values(rounds))
	s := Summary{Median: median(v), N: n}
	side := distuv.Binomial{N: float64(n), P: 0.5}
	for k := 1; k <= (n+1)/2; k++ {
		confidence := max(0, 1-2*side.CDF(float64(k-1)))
		if k > 1 && confidence < wantedConfidence {
			break
		}
		s.Low, s.High, s.Confidence = v[k-1], v[n-k], confidence
	}
	return s
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Format writes "42.1 (41.0–43.2)" with each value divided by unit.
func (s Summary) Format(unit float64, digits int) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", digits, s.Median/unit, digits, s.Low/unit, digits, s.High/unit)
}
