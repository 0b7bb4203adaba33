package matrix

import (
	"context"
	"fmt"
	"time"

	"slipway/lab/bench/load"
)

// idle lets the time go by once for all beds, and counts what the processes of
// each used. What the machine as a whole used belongs to none of them.
func (r *run) idle(ctx context.Context, w *row, out []load.Figures) error {
	before, err := w.read()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(w.Job.WarmUp + w.Job.Duration):
	}
	after, err := w.read()
	if err != nil {
		return err
	}
	for i := range w.cells {
		used := after[i].Since(before[i])
		out[i] = load.Figures{load.DaemonCPU: used.Figures(0, 0)[load.DaemonCPU] / used.Took.Seconds() * w.Job.Duration.Seconds()}
		r.Progress.Step()
	}
	return nil
}

// read takes the counters of all beds' processes.
func (w *row) read() ([]load.Counts, error) {
	out := make([]load.Counts, len(w.cells))
	for i, c := range w.cells {
		var err error
		if out[i], err = (load.Watch{Processes: c.bed.Watch().Processes}).Read(); err != nil {
			return nil, fmt.Errorf("%s: %w", c.bed.Name(), err)
		}
	}
	return out, nil
}
