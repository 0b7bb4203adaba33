package shape

import (
	"fmt"
	"strings"
	"time"

	"slipway/topology"
)

// Describe says in one line what a segment is shaped to and what does it, such
// as "rate 1000 Mbit/s (tbf), delay 1ms (tap relay)".
func Describe(seg topology.Segment, sup Support) string {
	p, err := planDown(seg, sup)
	if err != nil {
		return err.Error()
	}
	var parts []string
	if seg.Rate > 0 {
		parts = append(parts, fmt.Sprintf("rate %.4g Mbit/s (%s)", float64(seg.Rate)/1e6, p.Rate))
	}
	if seg.Delay > 0 {
		parts = append(parts, fmt.Sprintf("delay %s (%s)", time.Duration(seg.Delay), p.Delay))
	}
	if seg.Loss > 0 {
		parts = append(parts, fmt.Sprintf("loss %.4g%% (%s)", float64(seg.Loss), p.Loss))
	}
	return strings.Join(parts, ", ")
}
