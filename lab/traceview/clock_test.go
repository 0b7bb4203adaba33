package traceview

import (
	"slices"
	"testing"
)

// The answer leaves at 90 µs, while the request's delivery, which began at 80,
// is over at 95 only.
func TestClockCountsFromWhatWasBefore(t *testing.T) {
	var c clock
	var got []string
	for _, at := range []int64{0, 80_000, 95_000, 90_000, 97_500} {
		got = append(got, c.advance(at))
	}
	if want := []string{"0.0", "+80.0", "+15.0", "+10.0", "+2.5"}; !slices.Equal(got, want) {
		t.Errorf("times are written as %q, want %q", got, want)
	}
}
