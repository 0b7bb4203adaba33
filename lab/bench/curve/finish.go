package curve

import (
	"cmp"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// order shuffles the cells anew in every round.
func order(seed uint64, round, n int) []int {
	return rand.New(rand.NewPCG(seed, uint64(round))).Perm(n)
}

// finish writes down what is known at the end.
func (r *runner) finish(m matrix.Machine, before, after matrix.CPUTimes, partial bool) {
	host, _ := os.Hostname()
	steal, idle := after.Since(before)
	rep := r.report
	rep.TookNs, rep.Partial = time.Since(rep.Started).Nanoseconds(), partial
	rep.Plan = r.plan()
	rep.Conditions = report.Conditions{
		Slipway: r.Version, Host: host, Kernel: m.Kernel + " " + m.Arch, CPU: m.CPU, CPUs: m.CPUs, MemoryByte: m.Memory,
		Started: rep.Started, LoadBefore: m.Load, StealPercent: 100 * steal, IdlePercent: 100 * idle, Generator: "slipway",
	}
	rep.Notes, rep.Warnings = slices.Concat(r.kind.notes, r.curve.notes), r.warnings
	for _, s := range r.sorted() {
		pad(s, r.rounds)
		rep.Series = append(rep.Series, *s)
	}
	control := ""
	if slices.Contains(r.Lines, r.control) {
		control = r.control
	}
	rep.Conclude(control)
	for i := range rep.Series {
		if r.conclude == nil {
			break
		}
		if said := r.conclude(&rep.Series[i]); said != "" {
			rep.Notes = append(rep.Notes, said)
		}
	}
}

// sorted are all series, workload by workload and then by point, so that the
// lines of one point stand side by side.
func (r *runner) sorted() (out []*report.Series) {
	var places []string
	of := map[string][]*report.Series{}
	cells := slices.Clone(r.cells)
	slices.SortStableFunc(cells, func(a, b *cell) int { return cmp.Compare(a.point, b.point) })
	for _, c := range cells {
		for _, s := range c.series {
			place := s.Workload + " " + s.Path + " " + s.Target
			if of[place] == nil {
				places = append(places, place)
			}
			of[place] = append(of[place], s)
		}
	}
	for _, p := range places {
		out = append(out, of[p]...)
	}
	return out
}

// pad marks rounds that gave no figure at the end, and names the main metric.
func pad(s *report.Series, rounds int) {
	for i := range s.Metrics {
		m := &s.Metrics[i]
		for len(m.Rounds) < rounds {
			m.Rounds = append(m.Rounds, nil)
		}
	}
	if len(s.Metrics) > 0 {
		s.Main = s.Metrics[0].Name
	}
}

func (r *runner) plan() report.Plan {
	p := report.Plan{
		Variants: r.Lines, Rounds: r.Rounds, MaxRounds: r.MaxRounds, RoundNs: r.Duration.Nanoseconds(), WarmUpNs: r.WarmUp.Nanoseconds(),
		BudgetNs: r.Budget.Nanoseconds(), Seed: r.Seed,
	}
	for _, s := range r.sorted() {
		if !slices.Contains(p.Workloads, s.Workload) {
			p.Workloads = append(p.Workloads, s.Workload)
		}
		if s.Path != "" && !slices.Contains(p.Paths, s.Path) {
			p.Paths = append(p.Paths, s.Path)
		}
	}
	return p
}

// Metrics that only curves have.
const (
	loaded       = "load"             // s, until an empty kernel held it
	changed      = "change"           // s, until the kernel held one endpoint more
	loadCPU      = "load-cpu"         // s, of the program and those that it starts
	changeCPU    = "change-cpu"       // s
	rules        = "rules"            // in the kernel, or elements of sets
	plugged      = "time-a-pod"       // s, plugging it in
	upTook       = "up"               // s, the whole command that adds the pods
	kernelMemory = "kernel-memory"    // B, that the pods took
	memoryAPod   = "kernel-mem-a-pod" // B
	daemonMemory = "daemon-memory"    // B, of the lab's daemon
	converged    = "converge"         // s, from the start of the first speaker until all have all routes
	waited       = "converge-wait"    // s, the part after all speakers were started
	sessions     = "sessions"
	kernelRoutes = "kernel-routes" // that speakers put into all nodes' kernels
	missing      = "missing-routes"
	speakerPage  = "memory-a-speaker" // B, private
	speakerTotal = "speakers-memory"  // B, private, of all
	roundTrip    = "round-trip"       // s, without load
	ofBound      = "of-bound"         // throughput ÷ (window ÷ round trip)
)

// meanings are the metrics of this package, in the order in which they stand
// before those of the traffic.
var meanings = []struct {
	name string
	load.Meaning
}{
	{loaded, load.Meaning{Unit: "s", Better: "lower"}}, {changed, load.Meaning{Unit: "s", Better: "lower"}},
	{loadCPU, load.Meaning{Unit: "s", Better: "lower"}}, {changeCPU, load.Meaning{Unit: "s", Better: "lower"}},
	{rules, load.Meaning{}},
	{plugged, load.Meaning{Unit: "s", Better: "lower"}}, {upTook, load.Meaning{Unit: "s", Better: "lower"}},
	{memoryAPod, load.Meaning{Unit: "B", Better: "lower"}}, {kernelMemory, load.Meaning{Unit: "B", Better: "lower"}}, {daemonMemory, load.Meaning{Unit: "B", Better: "lower"}},
	{converged, load.Meaning{Unit: "s", Better: "lower"}}, {waited, load.Meaning{Unit: "s", Better: "lower"}}, {sessions, load.Meaning{}},
	{speakerPage, load.Meaning{Unit: "B", Better: "lower"}}, {speakerTotal, load.Meaning{Unit: "B", Better: "lower"}},
	{kernelRoutes, load.Meaning{}}, {missing, load.Meaning{Better: "lower"}},
	{load.Throughput, load.Meaning{}}, {ofBound, load.Meaning{Better: "higher"}}, {roundTrip, load.Meaning{Unit: "s"}}, {load.Window, load.Meaning{}},
	{load.PacketRate, load.Meaning{}}, {load.Loss, load.Meaning{}},
	{load.ConnectP50, load.Meaning{}}, {load.ConnectP99, load.Meaning{}},
	{load.P50, load.Meaning{}}, {load.P90, load.Meaning{}}, {load.P99, load.Meaning{}}, {load.P999, load.Meaning{}}, {load.Max, load.Meaning{}},
	{load.Rate, load.Meaning{}},
}

func rank(metric string) int {
	for i, m := range meanings {
		if m.name == metric {
			return i
		}
	}
	return len(meanings)
}

// byMeaning orders metrics as they read.
func byMeaning(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) }

// meaningOf says how a metric is read.
func meaningOf(metric string) load.Meaning {
	if m, ok := load.Means(metric); ok {
		return m
	}
	if i := rank(metric); i < len(meanings) {
		return meanings[i].Meaning
	}
	return load.Meaning{}
}
