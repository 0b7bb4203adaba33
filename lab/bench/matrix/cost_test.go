package matrix

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/lab/bench/load"
)

// Costs are of a whole measurement and divided by all that it carried: here 1 GB
// a second for two seconds, or 1000 requests a second.
func TestCostsAreShares(t *testing.T) {
	used := load.Cost{
		Took: 2 * time.Second, CPU: 4 * time.Second, SoftIRQ: time.Second, ContextSwitches: 6000,
		Processes: map[int]time.Duration{7: 2 * time.Second, 8: 0},
		Protocols: map[string]map[string]int64{"a": {"Tcp.RetransSegs": 3}, "b": {"Tcp.RetransSegs": 4}, "other": {"Tcp.RetransSegs": 100}},
	}
	job := func(workload, server string) load.Job {
		return load.Job{Workload: workload, Client: load.Place{Label: "a"}, Server: load.Place{Label: server}, WarmUp: time.Second, Duration: time.Second}
	}
	for name, c := range map[string]struct {
		job  load.Job
		f    load.Figures
		want load.Figures
	}{
		"a stream": {job(load.TCPStream, "b"), load.Figures{load.Throughput: 8e9, load.Retransmits: 2}, load.Figures{
			load.Throughput: 8e9, load.Retransmits: 2, // as the generator counted them
			load.CPUPerGB: 2, load.SoftIRQPerGB: 0.5, load.DaemonCPUPerGB: 1, load.SwitchesPerGB: 3000,
		}},
		"requests": {job(load.TCPRequests, "b"), load.Figures{load.Rate: 1000}, load.Figures{
			load.Rate: 1000, load.Retransmits: 7,
			load.CPUPerRequest: 0.002, load.SoftIRQPerRequest: 0.0005, load.DaemonCPUPerRequest: 0.001, load.SwitchesPerRequest: 3,
		}},
		"requests of a pod to itself": {job(load.TCPRequests, "a"), load.Figures{load.Rate: 1000}, load.Figures{
			load.Rate: 1000, load.Retransmits: 3,
			load.CPUPerRequest: 0.002, load.SoftIRQPerRequest: 0.0005, load.DaemonCPUPerRequest: 0.001, load.SwitchesPerRequest: 3,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			WithCost(c.f, used, c.job)
			for _, counts := range []string{load.DeviceDrops, load.ConntrackEntries} {
				if v := c.f[counts]; v != 0 {
					t.Errorf("%s is %g", counts, v)
				}
				delete(c.f, counts)
			}
			if diff := cmp.Diff(c.want, c.f); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What a case is judged by comes first, then its costs, then what is not known here.
func TestMetricsAreReadInOrder(t *testing.T) {
	got := order(load.Figures{"zebra": 1, load.Retransmits: 1, load.P99: 1, load.CPUPerGB: 1, load.P50: 1, "ant": 1, load.Throughput: 1})
	want := []string{load.Throughput, load.P50, load.P99, load.CPUPerGB, load.Retransmits, "ant", "zebra"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
