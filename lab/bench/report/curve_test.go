package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sweep is a series for each value of a parameter in two variants: host-gw has
// the figures of, vxlan half of them.
func sweep(workload, param string, values []string, others map[string]string, of func(i int) float64) (out []Series) {
	for i, v := range values {
		params := map[string]string{param: v}
		for k, o := range others {
			params[k] = o
		}
		for _, variant := range []string{"flannel-host-gw", "flannel-vxlan"} {
			s := Series{
				Variant: variant, Workload: workload, Path: "other-node", Target: "pod", Params: params, MTU: 1500, Offloads: "tso gso", Main: "throughput",
				Metrics: []Metric{
					{Name: "retransmits", Unit: "1", Better: Lower},
					{Name: "throughput", Unit: "bit/s", Better: Higher},
					{Name: "cpu-per-gb", Unit: "s/GB", Better: Lower},
				},
			}
			by := 1.0
			if variant == "flannel-vxlan" {
				s.MTU, by = 1450, 0.5
			}
			for round := range 7 {
				wobble := 1 + 0.02*float64(round-3)
				zero, rate, cost := 0.0, by*of(i)*wobble, wobble/by
				for j, v := range []*float64{&zero, &rate, &cost} {
					s.Metrics[j].Rounds = append(s.Metrics[j].Rounds, v)
				}
			}
			out = append(out, s)
		}
	}
	return out
}

// curves is a report of a sweep of write sizes, of a grid of windows and delays,
// and of two numbers of streams, which are no curve.
func curves() *Report {
	r := fixture()
	r.Series = nil
	gigabits := func(i int) float64 { return 1e9 * math.Pow(2, float64(i)) }
	r.Series = append(r.Series, sweep("tcp-stream", "write", []string{"128KiB", "1KiB", "16KiB", "1MiB"}, map[string]string{"streams": "1"}, gigabits)...)
	r.Series = append(r.Series, sweep("tcp-stream", "streams", []string{"4"}, map[string]string{"write": "128KiB"}, gigabits)...)
	for _, delay := range []string{"0ms", "1ms", "10ms"} {
		r.Series = append(r.Series, sweep("udp-stream", "window", []string{"64KiB", "256KiB", "1MiB", "4MiB"}, map[string]string{"delay": delay}, gigabits)...)
	}
	r.Conclude("flannel-host-gw")
	return r
}

// Which groups make a curve: those that differ in one number only, at least three
// of them, in the order of that number; in a grid, along its longer side.
func TestCurves(t *testing.T) {
	t.Parallel()
	var got []string
	for _, p := range curves().parts() {
		if p.group != nil {
			got = append(got, p.group.title)
			continue
		}
		var points []string
		for _, at := range p.curve.points {
			points = append(points, at.text)
		}
		got = append(got, p.curve.heading()+": "+strings.Join(points, " "))
	}
	want := []string{
		"tcp-stream · other-node → pod · streams=1, by write: 1KiB 16KiB 128KiB 1MiB",
		"tcp-stream · other-node → pod · streams=4 write=128KiB",
		"udp-stream · other-node → pod · delay=0ms, by window: 64KiB 256KiB 1MiB 4MiB",
		"udp-stream · other-node → pod · delay=1ms, by window: 64KiB 256KiB 1MiB 4MiB",
		"udp-stream · other-node → pod · delay=10ms, by window: 64KiB 256KiB 1MiB 4MiB",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A group may be a point of two curves: of streams and of writes.
func TestCurvesThatCross(t *testing.T) {
	t.Parallel()
	r := &Report{}
	one := func(int) float64 { return 1 }
	r.Series = append(r.Series, sweep("tcp-stream", "write", []string{"1KiB", "2KiB", "4KiB"}, map[string]string{"streams": "1"}, one)...)
	r.Series = append(r.Series, sweep("tcp-stream", "streams", []string{"2", "4"}, map[string]string{"write": "4KiB"}, one)...)
	parts := r.parts()
	if len(parts) != 2 || len(parts[0].curve.points) != 3 || len(parts[1].curve.points) != 3 {
		t.Fatalf("%+v", parts)
	}
	if parts[0].curve.points[2].group != parts[1].curve.points[0].group {
		t.Error("one stream of 4 KiB is not in both")
	}
}

func TestQuantity(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"128KiB": "131072 bytes", "64": "64 ", "1.5ms": "0.0015 seconds", "10µs": "1e-05 seconds", "1Gbit/s": "1e+09 bits/s", "100Mbit": "1e+08 bits",
		"10k": "10000 ", "1000/s": "1000 /s", "off": "no", "": "no", "KiB": "no", "NaN": "no", "1KiBx": "no", "5%": "5 percent", "20s": "20 seconds",
	} {
		v, dimension, ok := quantity(text)
		got := fmt.Sprintf("%.6g %s", v, dimension)
		if !ok {
			got = "no"
		}
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// The goldens were read: each step of the sweep is twice the one before it in the
// order of the plan (128KiB is the first), vxlan half of host-gw everywhere and
// twice its cost, and the summary has the point that was measured first.
func TestCurvesAsText(t *testing.T) {
	t.Parallel()
	golden(t, "curves.txt", rendered(t, curves(), Table))
	golden(t, "curves-brief.txt", rendered(t, curves(), Brief))
	golden(t, "curves.md", rendered(t, curves(), Markdown))
}

// Of many metrics a text has the main one and its cost; of few it has all.
func TestCurveInBrief(t *testing.T) {
	t.Parallel()
	names := func(r *Report) (out []string) {
		for _, c := range r.parts()[0].curve.brief() {
			out = append(out, c.name)
		}
		return out
	}
	r := curves()
	if diff := cmp.Diff([]string{"throughput", "retransmits", "cpu-per-gb"}, names(r)); diff != "" {
		t.Error(diff)
	}
	for i := range r.Series {
		s := &r.Series[i]
		for j := range fewMetrics {
			s.Metrics = append(s.Metrics, Metric{Name: fmt.Sprint("m", j), Rounds: rounds(1, 2, 3)})
		}
	}
	r.Conclude("flannel-host-gw")
	if diff := cmp.Diff([]string{"throughput", "cpu-per-gb"}, names(r)); diff != "" {
		t.Error(diff)
	}
	if text := rendered(t, r, Brief); !strings.Contains(strings.ReplaceAll(text, "\n", " "), "HTML and JSON forms have all") {
		t.Error("it does not say where the others are")
	}
}

// A series is judged by the metric that it names, or by the first with a
// direction if it has none of that name.
func TestMainMetric(t *testing.T) {
	t.Parallel()
	for named, want := range map[string]string{"": "throughput", "p99": "p99", "gone": "throughput", "retransmits": "retransmits"} {
		r := fixture()
		for i := range r.Series {
			r.Series[i].Main = named
		}
		if got := r.groups()[0].main().name; got != want {
			t.Errorf("main %q stands as %q, want %q", named, got, want)
		}
	}
}

// A single round has no interval to be shown.
func TestOneRound(t *testing.T) {
	t.Parallel()
	r := row{scale: scale{1, ""}}
	if got := r.value(Summarize([]float64{5}, 1)); got != "5 n=1" {
		t.Errorf("%q", got)
	}
	one := Summarize([]float64{0.5}, 1)
	if got := (&Metric{Ratio: &one, Control: "a"}).ratio("b"); got != "×0.50 ≈" {
		t.Errorf("%q", got)
	}
}

// A part of a sum is zero in rounds that have the sum and not the part, and only
// the sum is compared.
func TestPartsOfASum(t *testing.T) {
	t.Parallel()
	r := fixture()
	s := &r.Series[0]
	s.Metrics = append(s.Metrics,
		Metric{Name: "drops", Better: Lower, Rounds: rounds(0, 3, 0, -1, 0, 0, 0, 2)},
		Metric{Name: "drops:NO_SOCKET", Better: Lower, Rounds: rounds(-1, 3)})
	r.Conclude("flannel-host-gw")
	if diff := cmp.Diff(rounds(0, 3, 0, -1, 0, 0, 0, 0), s.metric("drops:NO_SOCKET").Rounds); diff != "" {
		t.Error(diff)
	}
	c := Compare(fixture(), r, 0)
	var found []string
	for _, f := range c.Findings {
		if strings.HasPrefix(f.Metric, "drops") {
			found = append(found, f.Metric)
		}
	}
	if !slices.Equal(found, []string{"drops"}) {
		t.Errorf("compared: %q", found)
	}
}
