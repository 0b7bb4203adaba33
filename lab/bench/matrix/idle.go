package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slipway/lab/bench/load"
)

// idle lets the time go by once for all beds, and counts what the processes of
// each used. What the machine as a whole used belongs to none of them.
func (r *run) idle(ctx context.Context, w *row, out []load.Figures) error {
	before, err := w.used()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(w.Job.WarmUp + w.Job.Duration):
	}
	after, err := w.used()
	if err != nil {
		return err
	}
	whole := (w.Job.WarmUp + w.Job.Duration).Seconds()
	for i := range w.cells {
		out[i] = load.Figures{load.DaemonCPU: (after[i] - before[i]).Seconds() / whole * w.Job.Duration.Seconds()}
		r.Progress.Step()
	}
	return nil
}

// used is the CPU time of each bed's processes so far.
func (w *row) used() ([]time.Duration, error) {
	out := make([]time.Duration, len(w.cells))
	for i, c := range w.cells {
		for _, pid := range c.bed.Watch().Processes {
			used, err := onCPU(pid)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.bed.Name(), err)
			}
			out[i] += used
		}
	}
	return out, nil
}

// onCPU is the time that a process's threads have run, by the scheduler's own
// clock in nanoseconds: at rest it is less than the ticks of /proc/PID/stat show.
// It is the first field of each thread's schedstat (linux
// Documentation/scheduler/sched-stats.rst). Threads that ended are not in it.
func onCPU(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(tasks) == 0 {
		err = errors.New("it is gone, or the kernel has no statistics of its scheduler")
	}
	var sum time.Duration
	for _, task := range tasks {
		data, e := os.ReadFile(task)
		if errors.Is(e, os.ErrNotExist) { // ended meanwhile
			continue
		}
		first, _, _ := strings.Cut(string(data), " ")
		ran, e2 := strconv.ParseInt(first, 10, 64)
		err = errors.Join(err, e, e2)
		sum += time.Duration(ran)
	}
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return sum, nil
}
