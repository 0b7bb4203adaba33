package traceview

import (
	"fmt"
	"reflect"
	"strings"

	"slipway/datapath/trace"
)

// mostBranches is how many ways the compact text lists.
const mostBranches = 12

// branches writes the ways that the packet could have gone, if there is a choice.
func branches(p *pen, t *trace.Trace, all bool) {
	if len(t.Branches) < 2 {
		return
	}
	p.blank()
	p.line(0, span{fmt.Sprintf("%d ways it could go", len(t.Branches)), strong}, span{"(* the one shown above)", faint})
	for i, b := range t.Branches {
		if i == mostBranches && !all {
			p.line(2, span{fmt.Sprintf("and %d more", len(t.Branches)-i), faint})
			break
		}
		end, pod := branchEnd(b)
		head := fmt.Sprintf("  %s %7s  %-18s  ", star(t, b), percent(b.Probability), end)
		words := []span{verdictWord(b.Verdict, b.Cause)}
		if pod != "" {
			words = append([]span{{pod, normal}}, words...)
		}
		if b.Cause != nil && b.Verdict != trace.Delivered {
			words = append(words, span{strings.TrimPrefix(b.Cause.Text, b.Cause.Place+": "), normal})
		}
		p.paragraph([]span{{head, normal}}, "", words...)
	}
}

func star(t *trace.Trace, b trace.Branch) string {
	if taken(t, b) {
		return "*"
	}
	return " "
}

// taken reports whether a branch is the one that the trace shows.
func taken(t *trace.Trace, b trace.Branch) bool {
	return len(b.Hops) > 0 && reflect.DeepEqual(b.Hops, t.Predicted)
}

// branchEnd is where a way ends: an address, and the pod that has it.
func branchEnd(b trace.Branch) (end, pod string) {
	if !b.Endpoint.IsValid() {
		if n := len(b.Hops); n > 0 { // it did not get there
			return destination(b.Hops[n-1].Packet), b.Pod
		}
		return "unknown", b.Pod
	}
	if b.Endpoint.Port() == 0 {
		return b.Endpoint.Addr().String(), b.Pod
	}
	return b.Endpoint.String(), b.Pod
}

// footer says how to read the marks, and what limits what was seen.
func footer(p *pen, t *trace.Trace) {
	if compared(t) {
		p.blank()
		p.line(0, span{"✓ predicted and observed   P only predicted   O only observed   ≠ differ   unmarked: cannot be seen", faint})
	}
	if t.Observer != "" {
		p.field("observer", span{observerName(t.Observer), faint})
	}
	for _, h := range t.Copies {
		p.field("copy", span{fmt.Sprintf("%s, device %s: saw a flooded copy that was not for it", placeOf(h), orUnknown(h.Device)), faint})
	}
	for _, n := range t.Notes {
		p.field("note", span{n, warn})
	}
}

func observerName(o string) string {
	switch o {
	case "bpf":
		return "bpf: kernel tracepoints and netfilter hooks"
	case "tracepoints":
		return "tracepoints: devices and drop reasons, no hooks"
	case "af_packet":
		return "af_packet: devices only, no hooks and no drop reasons"
	}
	return o
}
