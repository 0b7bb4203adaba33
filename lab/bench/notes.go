package bench

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// notes say how to read the report, and what its controls show.
func (p ModesPlan) notes(r *report.Report) []string {
	if p.Here != nil {
		return append(p.Here.notes(), p.beside(r)...)
	}
	out := []string{
		"One lab of each variant is up all the time, on one machine; rounds go through all cases, and each case through all variants in turn.",
		"Ratios are to " + p.Control + " in the same round. Everything is on one machine: no wire limits, segmentation is left to the last device.",
		"CPU time is the whole machine's: generator, both ends and datapath; the daemon's is of the lab's own processes.",
	}
	out = append(out, p.beside(r)...)
	if !p.Controls {
		return append(out, "tcp-stream hands "+strconv.Itoa(load.DefaultWrite>>10)+" KiB to the kernel at once; how a write packs into segments depends on the MTU, so a part of a difference may be packing and not encapsulation: --controls shows how much.")
	}
	for _, v := range p.Variants {
		out = append(out, p.packing(r, v)...)
	}
	return out
}

// gap is a ratio from which on two variants differ enough to ask why, and
// confident how sure an interval must be to answer: that of six rounds.
const (
	gap       = 0.95
	confident = 0.95
)

// packing compares a variant's ratio to the control with that at one MTU for
// both, at the write size that generators use.
func (p ModesPlan) packing(r *report.Report, v Variant) []string {
	control, err := ParseVariant(p.Control)
	if err != nil || v == control || v.podMTU() == control.podMTU() {
		return nil
	}
	same, with := v, control
	same.MTU, with.MTU = p.equalMTU(v), p.equalMTU(control)
	own, ok := ratio(r, v.Name(), control.Name())
	equal, ok2 := ratio(r, same.Name(), with.Name())
	if !ok || !ok2 || min(own.Confidence, equal.Confidence) < confident || own.High >= gap {
		return nil
	}
	text := fmt.Sprintf("Packing: tcp-stream of %s with 128 KiB writes reaches ×%s of %s, each at its own MTU (%d and %d), and ×%s at %d for both",
		v.Name(), interval(own), control.Name(), v.podMTU(), control.podMTU(), interval(equal), same.podMTU())
	switch closed := (equal.Median - own.Median) / (1 - own.Median); {
	case equal.Low <= own.High: // the intervals leave it open
		return []string{text + ": no evidence that the MTU explains the difference."}
	case closed >= 1:
		return []string{text + ": all of the difference is how a write packs into segments, and none of it encapsulation."}
	default:
		return []string{text + fmt.Sprintf(": %.0f %% of the difference is how a write packs into segments; what is left is encapsulation.", 100*closed)}
	}
}

// equalMTU is what [withControls] gives a variant; zero where it has that anyway.
func (p ModesPlan) equalMTU(v Variant) int {
	for _, other := range p.All {
		if other.MTU > 0 && other.Mode == v.Mode && other.UDP == v.UDP {
			return other.MTU
		}
	}
	return 0
}

func (p ModesPlan) beside(r *report.Report) []string { return Beside(r, p.Control) }

// Beside compares a variant's pods with what the machine does without pods: the
// same between nodes, over a veth pair and inside one namespace.
func Beside(r *report.Report, variant string) []string {
	var out []string
	for _, of := range []struct{ workload, metric, text string }{
		{load.TCPStream, load.Throughput, "the throughput of tcp-stream"}, {load.TCPRequests, load.P50, "the median time of tcp-rr"},
	} {
		pods := find(r, variant, of.workload, matrix.OtherNode, of.metric)
		var parts []string
		for _, c := range []struct{ path, text string }{
			{matrix.NodeNode, "from node to node"}, {matrix.VethPair, "over one veth pair"}, {matrix.Loopback, "over loopback"},
		} {
			if s, ok := over(r, pods, find(r, c.path, of.workload, c.path, of.metric)); ok {
				parts = append(parts, "×"+interval(s)+" of that "+c.text)
			}
		}
		if len(parts) > 0 {
			out = append(out, fmt.Sprintf("Between pods of two nodes %s by %s is %s.", of.text, variant, strings.Join(parts, ", ")))
		}
	}
	return out
}

// ratio is one variant's throughput over another's, between pods of two nodes.
func ratio(r *report.Report, of, to string) (report.Summary, bool) {
	throughput := func(variant string) *report.Metric {
		return find(r, variant, load.TCPStream, matrix.OtherNode, load.Throughput)
	}
	return over(r, throughput(of), throughput(to))
}

// over is one metric's ratio to another, round by round.
func over(r *report.Report, a, b *report.Metric) (report.Summary, bool) {
	if a == nil || b == nil {
		return report.Summary{}, false
	}
	rounds := report.Values(report.Ratios(a.Rounds, b.Rounds))
	return report.Summarize(rounds, r.Plan.Seed), len(rounds) > 0
}

// find is a metric of a workload in its plain form: by the pod's own address,
// one connection, the usual writes, as fast as it goes.
func find(r *report.Report, variant, workload, path, metric string) *report.Metric {
	plain := map[string]string{"write": size(load.DefaultWrite), "streams": "1", "rate": ""}
	for i := range r.Series {
		s := &r.Series[i]
		if s.Variant != variant || s.Workload != workload || s.Path != path || s.Target != matrix.Pod && s.Target != matrix.Direct {
			continue
		}
		if slices.ContainsFunc(slices.Collect(maps.Keys(s.Params)), func(k string) bool { want, known := plain[k]; return known && s.Params[k] != want }) {
			continue
		}
		if at := slices.IndexFunc(s.Metrics, func(m report.Metric) bool { return m.Name == metric }); at >= 0 {
			return &s.Metrics[at]
		}
	}
	return nil
}

func interval(s report.Summary) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Low, s.High)
}
