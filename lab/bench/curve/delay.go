package curve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
	"slipway/topology"
)

var delay = &kind{
	name: "delay", title: "A stream over a segment of growing delay", unit: "ms one way", param: "delay", suffix: "ms",
	lines: []string{"64KiB", "256KiB", "1MiB", "4MiB"}, points: []int{0, 1, 5, 20}, low: 0, high: 200,
	line: func(l string) error { _, err := bytesOf(l); return err }, main: []string{load.Throughput}, open: openDelay, patience: time.Minute, conclude: against,
	notes: []string{
		"Lines are buffers that the receiver asks for (SO_RCVBUF; the sender has twice that). The kernel makes them twice as large (socket(7)) and offers most of that as window, which stands beside the throughput.",
		"A connection carries at most a window in each round trip: of-bound is the throughput over window ÷ round trip, with the round trip measured without load just before. What is missing to 1 is waiting: for the CPU, in queues, or because a round trip is longer under load. Without delay that is nearly all of a round trip, and there is no of-bound.",
		"The delay is one way; a round trip takes twice as long, and a little more. Traffic is warmed up for fifty delays longer than without, so that it has left slow start.",
	},
}

// bytesOf reads "64KiB" or "4MiB".
func bytesOf(text string) (int, error) {
	var n int
	for unit, by := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20} {
		digits, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		if _, err := fmt.Sscanf(digits+"\n", "%d\n", &n); err == nil && n > 0 && n*by <= 32<<20 {
			return n * by, nil
		}
	}
	return 0, &OptionError{fmt.Sprintf("buffer %q is not a size such as 64KiB or 4MiB, of at most 32MiB", text)}
}

func openDelay(ctx context.Context, o *Options) (c *curve, err error) {
	var nets networks
	c = &curve{close: nets.down}
	defer func() {
		if err != nil {
			err = errors.Join(err, nets.down(ctx))
		}
	}()
	for _, ms := range o.Points {
		o.Progress.Phase(fmt.Sprintf("delay: lab of %d ms", ms), 0)
		n, err := nets.add(fmt.Sprintf("delay%d", ms))
		if err != nil {
			return c, err
		}
		p, st, err := n.pair(ctx, delaySpec(ms))
		if err != nil {
			return c, err
		}
		by := "no relay or queue"
		if d := st.Implementations["segment rack1"]; d != "" {
			by = d
		}
		c.notes = append(c.notes, fmt.Sprintf("%d ms: %s.", ms, by))
		for _, line := range o.Lines {
			buffer, err := bytesOf(line)
			if err != nil {
				return c, err
			}
			c.cells = append(c.cells, &cell{line: line, point: ms, measure: func(ctx context.Context) ([]reading, error) {
				return p.stream(ctx, o, buffer, time.Duration(ms)*time.Millisecond)
			}})
		}
	}
	return c, nil
}

func delaySpec(ms int) string {
	shaped := ""
	if ms > 0 {
		shaped = fmt.Sprintf(", delay: %dms", ms)
	}
	return fmt.Sprintf("  network: {mode: %s}\n  underlay: {segments: [{name: rack1, subnet: 192.168.233.0/24%s}]}\n", topology.FlannelHostGW, shaped)
}

// stream measures a round trip and a stream with buffers of a size.
func (p pair) stream(ctx context.Context, o *Options, buffer int, delay time.Duration) ([]reading, error) {
	rtt, err := p.roundTripOf(ctx)
	if err != nil {
		return nil, err
	}
	j := p.job(o, load.TCPStream)
	j.Buffer = buffer
	j.WarmUp += 50 * delay
	f, err := load.Native{}.Run(ctx, j)
	if err != nil {
		return nil, err
	}
	figures := load.Figures{
		load.Throughput: f[load.Throughput], load.Window: f[load.Window], load.Retransmits: f[load.Retransmits], roundTrip: rtt.Seconds(),
	}
	if delay > 0 {
		figures[ofBound] = f[load.Throughput] / (f[load.Window] * 8 / rtt.Seconds())
	}
	return []reading{{load.TCPStream, "other-node", "pod", p.nature, figures}}, nil
}

// against says for each point what window and round trip allow, and what was
// carried of it.
func against(s *report.Series) string {
	v := map[string]float64{}
	for _, m := range s.Metrics {
		v[m.Name] = m.Summary.Median
	}
	if v[ofBound] <= 0 {
		return ""
	}
	bound := v[load.Window] * 8 / v[roundTrip]
	return fmt.Sprintf("%s at %s: a window of %.0f KiB in a round trip of %.2f ms allows %.4g Mbit/s; carried were %.4g, %.0f %%.", s.Variant, s.Params["delay"],
		v[load.Window]/1024, v[roundTrip]*1000, bound/1e6, v[load.Throughput]/1e6, 100*v[load.Throughput]/bound)
}
