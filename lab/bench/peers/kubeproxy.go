package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"slipway/datapath/kubeproxy"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
	"slipway/topology"
)

var kubeProxySection = Section{
	Name:       "kube-proxy",
	About:      "the real kube-proxy's own time to write its rules beside ours for the same services",
	Components: []string{"kube-proxy"},
	Run:        runKubeProxy,
}

// The variants, workloads and metrics of the section.
const (
	theirProxy = "kube-proxy"
	ourProxy   = "slipway"

	loadServices   = "services-load"   // everything, into an empty namespace
	changeEndpoint = "endpoint-change" // one endpoint of one service is another

	syncTime = "sync"        // of kube-proxy what its metric says; of ours to plan, read, load and read again
	sinceRun = "since-start" // kube-proxy: since its process began
	syncCPU  = "cpu"         // of the process and the programs that it runs
)

// serviceCounts are the sizes that are measured, of endpointsEach.
var serviceCounts = []int{100, 1000, 5000}

const endpointsEach = 3

// proxyModes are the parts of the section.
var proxyModes = []topology.ProxyMode{topology.ProxyIPTables, topology.ProxyNFTables}

// proxyCell is one size in one mode, measured by both.
type proxyCell struct {
	mode   topology.ProxyMode
	count  int
	before topology.Snapshot
	after  topology.Snapshot // with the change
	series map[[2]string]*report.Series
	took   time.Duration // the last round
	over   bool          // no time is left for another
}

// figures are those of one variant in one round, by workload and metric.
type figures map[[2]string]float64

func runKubeProxy(ctx context.Context, o Options) (*report.Report, error) {
	machine, err := matrix.ReadMachine()
	if err != nil {
		return nil, err
	}
	start, err := matrix.ReadCPUTimes()
	if err != nil {
		return nil, err
	}
	var cells []*proxyCell
	for _, mode := range proxyModes {
		if o.wants(string(mode)) {
			for _, n := range serviceCounts {
				cells = append(cells, newProxyCell(mode, n))
			}
		}
	}
	r := &report.Report{Started: time.Now(), Plan: report.Plan{
		Variants: []string{theirProxy, ourProxy}, Workloads: []string{loadServices, changeEndpoint},
		Rounds: o.Rounds, MaxRounds: o.Rounds, Seed: o.Seed, BudgetNs: o.Budget.Nanoseconds(),
	}}
	err = proxyRounds(ctx, o, cells, r)
	for _, c := range cells {
		for _, k := range slices.SortedFunc(maps.Keys(c.series), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
			r.Series = append(r.Series, *c.series[k])
		}
	}
	end, e := matrix.ReadCPUTimes()
	steal, idle := end.Since(start)
	r.TookNs, r.Partial = time.Since(r.Started).Nanoseconds(), err != nil
	r.Conditions = report.Conditions{
		Slipway: o.Version, Kernel: machine.Kernel, CPU: machine.CPU, CPUs: machine.CPUs, MemoryByte: machine.Memory,
		Started: r.Started, LoadBefore: machine.Load, StealPercent: 100 * steal, IdlePercent: 100 * idle,
		Generator: "kube-proxy and slipway themselves",
	}
	r.Notes = append(r.Notes,
		fmt.Sprintf("kube-proxy: %s is what its metric sync_proxy_rules_duration_seconds gets, %s the time from the start of its process, and %s that of the process with its API client and the programs that it runs. slipway: the rules are planned and applied by the code that `up` runs, reading what is there before and after.", syncTime, sinceRun, syncCPU),
		"kube-proxy's change of an endpoint is a partial sync: it writes the chains of what changed. Ours compares everything and loads what differs.")
	r.Conclude(theirProxy)
	return r, errors.Join(err, e)
}

// proxyRounds measures all cells in turn, round by round; who is first changes.
func proxyRounds(ctx context.Context, o Options, cells []*proxyCell, r *report.Report) error {
	order := rand.New(rand.NewPCG(o.Seed, uint64(len(cells))))
	for round := range max(o.Rounds, 1) {
		for _, c := range cells {
			if c.over {
				continue
			}
			if o.Budget > 0 && time.Since(r.Started)+c.took > o.Budget {
				c.over = true
				r.Warnings = append(r.Warnings, fmt.Sprintf("%d services in %s mode: the time of %s was used up after %d rounds of %d", c.count, c.mode, o.Budget, round, o.Rounds))
				continue
			}
			o.phase("%d services in %s mode: round %d of %d", c.count, c.mode, round+1, o.Rounds)
			begun := time.Now()
			if err := c.round(ctx, o, order.IntN(2) == 0); err != nil {
				return fmt.Errorf("%d services in %s mode: %w", c.count, c.mode, err)
			}
			c.took = time.Since(begun)
		}
	}
	return nil
}

// round measures both; their figures count only if both came about.
func (c *proxyCell) round(ctx context.Context, o Options, theirsFirst bool) error {
	var theirs, ours figures
	measure := []func() error{
		func() (err error) { ours, err = c.ours(ctx); return err },
		func() (err error) { theirs, err = c.theirs(ctx, o.Binary("kube-proxy", "kube-proxy")); return err },
	}
	if theirsFirst {
		slices.Reverse(measure)
	}
	for _, m := range measure {
		if err := m(); err != nil {
			return err
		}
	}
	c.add(theirProxy, theirs)
	c.add(ourProxy, ours)
	return nil
}

func (c *proxyCell) add(variant string, f figures) {
	for _, k := range slices.SortedFunc(maps.Keys(f), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		workload, metric := k[0], k[1]
		s := c.series[[2]string{workload, variant}]
		if s == nil {
			s = &report.Series{
				Variant: variant, Workload: workload, Path: "one-node", Main: syncTime,
				Params: map[string]string{"services": strconv.Itoa(c.count), "mode": string(c.mode)},
			}
			c.series[[2]string{workload, variant}] = s
		}
		i := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == metric })
		if i < 0 {
			i = len(s.Metrics)
			s.Metrics = append(s.Metrics, report.Metric{Name: metric, Unit: "s", Better: report.Lower})
		}
		s.Metrics[i].Rounds = append(s.Metrics[i].Rounds, new(f[k]))
	}
}

// newProxyCell makes the services: each has endpoints of its own, on this node
// and others. The change gives the one in the middle another endpoint.
func newProxyCell(mode topology.ProxyMode, n int) *proxyCell {
	c := &proxyCell{mode: mode, count: n, before: proxySnapshot(mode, n), series: map[[2]string]*report.Series{}}
	c.after = c.before
	c.after.Services = slices.Clone(c.after.Services)
	s := &c.after.Services[n/2]
	s.Ports = slices.Clone(s.Ports)
	s.Ports[0].Endpoints = slices.Clone(s.Ports[0].Endpoints)
	s.Ports[0].Endpoints[0].Address = changedAddress
	return c
}

func (c *proxyCell) options(s topology.Snapshot) kubeproxy.Options {
	o := kubeproxy.DefaultOptions(s)
	o.Mode = c.mode
	return o
}
