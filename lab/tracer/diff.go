package tracer

import (
	"fmt"
	"strings"

	"slipway/datapath/trace"
)

// Difference is one point in which two traces differ.
type Difference struct {
	// What is verdict, cause, path, rule, packet or route.
	What  string `json:"what"`
	Reply bool   `json:"reply,omitempty"`
	Text  string `json:"text"`
	A     string `json:"a,omitempty"` // only here, or as it was in A
	B     string `json:"b,omitempty"`
}

// Diff compares two traces hop by hop, by what was observed where both hold an
// observation, else by what was predicted. Times and the numbers that a kernel
// makes up for each connection are not compared.
func Diff(a, b *trace.Trace) []Difference {
	var out []Difference
	if a.Verdict != b.Verdict {
		out = append(out, Difference{What: "verdict", A: a.Verdict.String(), B: b.Verdict.String(), Text: fmt.Sprintf("verdict %s → %s", a.Verdict, b.Verdict)})
	}
	if x, y := cause(a), cause(b); x != y {
		out = append(out, Difference{What: "cause", A: x, B: y, Text: strings.TrimSpace(fmt.Sprintf("cause %s → %s", orNone(x), orNone(y)))})
	}
	observed := a.ObservedVerdict != nil && b.ObservedVerdict != nil
	way := func(t *trace.Trace, reply bool) []trace.Hop {
		switch {
		case observed && reply:
			return t.Reply.Observed
		case observed:
			return t.Observed
		case reply:
			return t.Reply.Predicted
		default:
			return t.Predicted
		}
	}
	for _, reply := range []bool{false, true} {
		out = append(out, diffWay(way(a, reply), way(b, reply), reply)...)
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func cause(t *trace.Trace) string {
	c := t.ObservedCause
	if c == nil {
		c = t.PredictedCause
	}
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s at %s %s %s", c.Reason, c.Place, c.Device, c.Stage)
}

// step is what makes two hops the same step of a way.
func step(h trace.Hop) string {
	s := fmt.Sprintf("%s/%s %s", h.Place, h.Device, h.Stage)
	if h.Packet.Outer != nil {
		s += " in " + h.Packet.Outer.Type
	}
	return s
}

func diffWay(a, b []trace.Hop, reply bool) []Difference {
	var out []Difference
	for _, p := range align(a, b) {
		switch {
		case p.b < 0:
			s := step(a[p.a])
			out = append(out, Difference{What: "path", Reply: reply, A: s, Text: "only in A: " + s})
		case p.a < 0:
			s := step(b[p.b])
			out = append(out, Difference{What: "path", Reply: reply, B: s, Text: "only in B: " + s})
		default:
			out = append(out, diffHop(a[p.a], b[p.b], reply)...)
		}
	}
	return out
}

// diffHop compares one step of both.
func diffHop(a, b trace.Hop, reply bool) []Difference {
	var out []Difference
	at := step(a)
	add := func(what, x, y string) {
		if x != y {
			out = append(out, Difference{What: what, Reply: reply, A: x, B: y, Text: fmt.Sprintf("%s: %s %s → %s", at, what, orNone(x), orNone(y))})
		}
	}
	add("packet", address(a), address(b))
	add("rule", a.Rule, b.Rule)
	add("route", a.Route, b.Route)
	if a.Action != b.Action {
		add("action", string(a.Action), string(b.Action))
	}
	return out
}

// address is what of a packet two runs have in common: ports below 32768 were
// chosen by people, the others by the kernel (net.ipv4.ip_local_port_range).
func address(h trace.Hop) string {
	p := h.Packet
	s := fmt.Sprintf("%s %s%s → %s%s ttl %d", p.Proto, p.Src, port(p.SPort), p.Dst, port(p.DPort), p.TTL)
	if o := p.Outer; o != nil {
		s += fmt.Sprintf(" in %s %s → %s", o.Type, o.Src, o.Dst)
	}
	return s
}

const firstEphemeral = 32768

func port(n uint16) string {
	switch {
	case n == 0:
		return ""
	case n >= firstEphemeral:
		return ":*"
	default:
		return fmt.Sprintf(":%d", n)
	}
}

// pair is two indexes of the same step; -1: the other side has none.
type pair struct{ a, b int }

// align finds the longest common sequence of steps.
func align(a, b []trace.Hop) []pair {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if step(a[i]) == step(b[j]) {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []pair
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && step(a[i]) == step(b[j]):
			out = append(out, pair{i, j})
			i, j = i+1, j+1
		case j == len(b) || (i < len(a) && common[i+1][j] >= common[i][j+1]):
			out = append(out, pair{i, -1})
			i++
		default:
			out = append(out, pair{-1, j})
			j++
		}
	}
	return out
}
