package matrix

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"

	"slipway/lab/bench/load"
)

// lone is a bed of which only the processes matter.
type lone struct {
	bed
	processes []int
}

func (l lone) Watch() load.Watch { return load.Watch{Processes: l.processes} }

// At rest every bed with processes is watched at once: this one, which is busy
// meanwhile, shows that in its time, and one without processes takes no part.
func TestIdleCountsProcesses(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for ctx.Err() == nil { // work
		}
	}()
	beds := []Bed{lone{bed{name: "busy"}, []int{os.Getpid()}}, lone{bed{name: "parent"}, []int{os.Getppid()}}, bed{name: "none"}}
	at := Case{Job: load.Job{Workload: load.Idle, Duration: 300 * time.Millisecond}, Main: load.DaemonCPU}
	start := time.Now()
	r, err := Run(t.Context(), Options{Rounds: 1, Seed: 1}, beds, []Case{at})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start).Seconds()
	if len(r.Series) != 2 || r.Series[0].Variant != "busy" {
		t.Fatalf("series %+v", r.Series)
	}
	if used := r.Series[0].Metrics[0].Summary.Median; used <= 0 || used > took*float64(runtime.NumCPU()) {
		t.Errorf("the busy process used %g s in %g s", used, took)
	}
	if busy, parent := r.Series[0].Metrics[0].Summary.Median, r.Series[1].Metrics[0].Summary.Median; busy <= parent {
		t.Errorf("the busy process used %g s, its waiting parent %g s", busy, parent)
	}
}
