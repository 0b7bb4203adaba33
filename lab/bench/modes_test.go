package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
	"slipway/topology"
)

// full is what `slipway bench` measures if it is told nothing.
func full() ModesOptions {
	return ModesOptions{
		Variants: Variants(), Workloads: Workloads(), Streams: []int{1, 4}, Rounds: 6, MaxRounds: 15,
		Duration: 400 * time.Millisecond, WarmUp: 50 * time.Millisecond, Control: string(topology.FlannelHostGW), Seed: 1,
	}
}

func TestVariantsAreFoundByTheirNames(t *testing.T) {
	for _, v := range Variants() {
		if got, err := ParseVariant(v.Name()); err != nil || got != v {
			t.Errorf("%s is read as %+v, %v", v.Name(), got, err)
		}
	}
	if v, err := ParseVariant("flannel-udp"); err != nil || v.UDP != topology.UDPBatched {
		t.Errorf("flannel-udp is read as %+v, %v: not as the default of cluster files", v, err)
	}
	for _, name := range []string{"", "vxlan", "flannel-vxlan/ebpf", "flannel-udp/"} {
		if v, err := ParseVariant(name); err == nil {
			t.Errorf("%q is read as %+v", name, v)
		}
	}
}

// Every mode is there with one MTU for all and without offloads, and none twice.
func TestControlsOfVariants(t *testing.T) {
	vs := []Variant{{Mode: topology.FlannelVXLAN}, {Mode: topology.FlannelHostGW}, {Mode: topology.CalicoIPIP}}
	var got []string
	for _, v := range withControls(vs) {
		got = append(got, v.Name())
	}
	want := []string{
		"flannel-vxlan", "flannel-host-gw", "calico-ipip",
		"flannel-host-gw+mtu1450", "calico-ipip+mtu1450", // VXLAN leaves 50 bytes less than the underlay has
		"flannel-vxlan+no-offloads", "flannel-host-gw+no-offloads", "calico-ipip+no-offloads",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// where are the places of a plan, as "tcp-rr hairpin clusterip".
func where(cases []matrix.Case) []string {
	var out []string
	for _, c := range cases {
		out = append(out, strings.TrimSpace(c.Job.Workload+" "+c.Path+" "+c.Target))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestWhatIsMeasuredWhere(t *testing.T) {
	o := full()
	o.Workloads = []string{load.TCPRequests, load.TCPConnects, load.UDPRequests, load.Idle}
	for name, c := range map[string]struct {
		change func(*ModesOptions)
		want   []string
	}{
		"by default": {func(*ModesOptions) {}, []string{
			"idle", "tcp-crr loopback", "tcp-crr node", "tcp-crr other-node clusterip", "tcp-crr other-node nodeport", "tcp-crr other-node pod",
			"tcp-crr veth", "tcp-rr hairpin clusterip", "tcp-rr loopback", "tcp-rr node", "tcp-rr other-node pod", "tcp-rr other-rack pod",
			"tcp-rr same-node pod", "tcp-rr veth", "udp-rr other-node pod",
		}},
		"a path": {func(o *ModesOptions) { o.Paths = []string{matrix.SameNode} }, []string{
			"idle", "tcp-crr same-node pod", "tcp-rr same-node pod", "udp-rr same-node pod",
		}},
		"a target": {func(o *ModesOptions) {
			o.Paths, o.Targets = []string{matrix.OtherNode, matrix.VethPair}, []string{matrix.NodePort}
		}, []string{
			"idle", "tcp-crr other-node nodeport", "tcp-crr veth", "tcp-rr other-node nodeport", "tcp-rr veth", "udp-rr other-node nodeport", "udp-rr veth",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			c.change(&o)
			if diff := cmp.Diff(c.want, where(o.Plan().Cases)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The full plan has room for six rounds in less than ten minutes.
func TestFullPlanIsBounded(t *testing.T) {
	o := full()
	o.Budget = 9*time.Minute + 30*time.Second
	if p := o.Plan(); p.Fit() < p.Rounds {
		t.Errorf("there is time for %d rounds of %s, not for %d", p.Fit(), p.Round, p.Rounds)
	}
	o.Budget = 2 * time.Minute
	if p := o.Plan(); p.Fit() != 1 {
		t.Errorf("two minutes are enough for %d rounds of %s", p.Fit(), p.Round)
	}
}

// With and without controls no network measures the same thing twice.
func TestCasesAreDifferent(t *testing.T) {
	for _, controls := range []bool{false, true} {
		o := full()
		o.Controls = controls
		seen := map[string]bool{}
		for _, c := range o.Plan().Cases {
			key := fmt.Sprint(c.Job.Workload, c.Path, c.Target, c.Params)
			if seen[key] {
				t.Errorf("controls %t: %s is there twice", controls, key)
			}
			seen[key] = true
		}
	}
}

// known makes a series of tcp-stream as the packing note looks for it.
func known(variant string, rounds ...float64) report.Series {
	m := report.Metric{Name: load.Throughput, Unit: "bit/s", Better: report.Higher}
	for _, v := range rounds {
		m.Rounds = append(m.Rounds, &v)
	}
	return report.Series{
		Variant: variant, Workload: load.TCPStream, Path: matrix.OtherNode, Target: matrix.Pod,
		Params: map[string]string{"write": "128KiB", "streams": "1"}, Metrics: []report.Metric{m},
	}
}

// The note says which part of a difference one MTU for all takes away.
func TestPackingIsNamed(t *testing.T) {
	o := full()
	o.Variants, o.Controls = []Variant{{Mode: topology.FlannelVXLAN}, {Mode: topology.FlannelHostGW}}, true
	p := o.Plan()
	around := func(v float64) []float64 { return []float64{v * 0.99, v, v * 1.01, v, v * 0.99, v, v * 1.01} }
	for want, equal := range map[string]float64{
		"80 % of the difference is how a write packs":         22.2, // 20/22.2 = 0.9: from 0.5 to 0.9 of 1
		"all of the difference is how a write packs":          20,
		"no evidence that the MTU explains the difference":    40,
		"50 % of the difference is how a write packs into se": 26.67,
	} {
		r := &report.Report{Plan: report.Plan{Seed: 1}, Series: []report.Series{
			known("flannel-vxlan", around(20)...), known("flannel-host-gw", around(40)...), known("flannel-host-gw+mtu1450", around(equal)...),
		}}
		if notes := p.packing(r, p.Variants[0]); len(notes) != 1 || !strings.Contains(notes[0], want) {
			t.Errorf("host-gw at 1450 with %g Gbit/s: %q, want %q", equal, notes, want)
		}
	}
	r := &report.Report{Series: []report.Series{known("flannel-vxlan", 40, 40), known("flannel-host-gw", 40, 40), known("flannel-host-gw+mtu1450", 40, 40)}}
	if notes := p.packing(r, p.Variants[0]); len(notes) > 0 {
		t.Errorf("a difference is explained that does not exist: %q", notes)
	}
}

// short are options of a bench of two modes that takes seconds.
func short(t *testing.T) ModesOptions {
	testnet.Need(t, testnet.Root, testnet.VXLAN, testnet.IPTables)
	t.Setenv(lab.StateDirEnv, t.TempDir())
	exe, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return ModesOptions{
		Exe: exe, Variants: []Variant{{Mode: topology.FlannelVXLAN}, {Mode: topology.FlannelHostGW}},
		Workloads: []string{load.TCPStream, load.TCPRequests, load.Idle}, Streams: []int{1},
		Rounds: 2, MaxRounds: 2, Duration: 60 * time.Millisecond, WarmUp: 10 * time.Millisecond, Control: "flannel-host-gw", Seed: 1,
	}
}

// A bench of real labs has every path that the modes have, with the facts that
// explain a figure, and leaves nothing.
func TestModesMeasureRealLabs(t *testing.T) {
	o := short(t)
	o.Controls = true
	r, err := Modes(t.Context(), o.Plan())
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
	for _, s := range r.Series {
		if s.Workload != load.Idle {
			checkSeries(t, s)
		}
	}
	if got, want := variantsOf(r, load.TCPStream, matrix.OtherNode), "flannel-host-gw flannel-host-gw+mtu1450 flannel-host-gw+no-offloads flannel-vxlan flannel-vxlan+no-offloads"; got != want {
		t.Errorf("tcp-stream between nodes is of %s, want %s", got, want)
	}
	for path, want := range map[string]string{
		matrix.OtherRack: "flannel-vxlan", // host-gw's nodes are in one segment
		matrix.SameNode:  "flannel-host-gw flannel-vxlan", matrix.Hairpin: "flannel-host-gw flannel-vxlan",
		matrix.Loopback: "loopback", matrix.VethPair: "veth", matrix.NodeNode: "node",
	} {
		if got := variantsOf(r, load.TCPRequests, path); got != want {
			t.Errorf("tcp-rr by %s is of %q, want %q", path, got, want)
		}
	}
	if got, want := variantsOf(r, load.Idle, ""), "flannel-host-gw flannel-vxlan"; got != want {
		t.Errorf("idle is of %q, want %q", got, want)
	}
}

// checkSeries looks at what stands in every row.
func checkSeries(t *testing.T, s report.Series) {
	t.Helper()
	mtu := map[string]int{"flannel-vxlan": 1450, "flannel-host-gw": 1500, "flannel-host-gw+mtu1450": 1450, "loopback": 65536, "veth": 1500, "node": 1500}
	variant, without := strings.CutSuffix(s.Variant, noOffloadsSuffix)
	if s.MTU != mtu[variant] {
		t.Errorf("%s %s %s: MTU %d, want %d", s.Variant, s.Workload, s.Path, s.MTU, mtu[variant])
	}
	if got := strings.Contains(s.Offloads, "tso"); got == without {
		t.Errorf("%s %s %s: offloads %q", s.Variant, s.Workload, s.Path, s.Offloads)
	}
	has := map[string]report.Metric{}
	for _, m := range s.Metrics {
		has[m.Name] = m
	}
	wants := map[string][]string{
		load.TCPStream: {load.Throughput, load.CPUPerGB, load.Retransmits, load.Dropped, load.DeviceDrops},
	}[s.Workload]
	if wants == nil {
		wants = []string{load.Rate, load.P50, load.P999, load.CPUPerRequest, load.DeviceDrops}
	}
	if s.Path == matrix.OtherNode {
		wants = append(wants, load.ConntrackEntries)
	}
	for _, name := range wants {
		m, ok := has[name]
		if !ok || len(m.Rounds) != 2 {
			t.Errorf("%s %s %s: no two rounds of %s", s.Variant, s.Workload, s.Path, name)
		}
	}
	if m := has[s.Main]; m.Summary.Median <= 0 || s.Variant == "flannel-host-gw" && (m.Ratio == nil || m.Ratio.Median != 1) {
		t.Errorf("%s %s %s: %s is %+v, ratio %+v", s.Variant, s.Workload, s.Path, s.Main, m.Summary, m.Ratio)
	}
}

// variantsOf are those that have a workload on a path, by name.
func variantsOf(r *report.Report, workload, path string) string {
	var out []string
	for _, s := range r.Series {
		if s.Workload == workload && s.Path == path {
			out = append(out, s.Variant)
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// interrupter ends the bench in its second round.
type interrupter struct {
	rounds int
	end    context.CancelFunc
}

func (i *interrupter) Phase(name string, _ int) {
	if strings.HasPrefix(name, "round") {
		i.rounds++
	}
}

func (i *interrupter) Step() {
	if i.rounds == 2 {
		i.end()
	}
}

// What was measured before an interruption comes back, and no lab stays.
func TestInterruptedModesLeaveNothing(t *testing.T) {
	o := short(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Workloads, o.Paths, o.Progress = []string{load.TCPRequests}, []string{matrix.OtherNode, matrix.VethPair}, &interrupter{end: cancel}
	r, err := Modes(ctx, o.Plan())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	nothingLeft(t)
	if r == nil || !r.Partial || len(r.Series) != 3 {
		t.Fatalf("report %+v", r)
	}
	for _, s := range r.Series {
		if got := len(s.Metrics[0].Rounds); got != 1 {
			t.Errorf("%s has %d rounds, want the one that was complete", s.Variant, got)
		}
	}
}
