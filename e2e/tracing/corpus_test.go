package tracing

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"slipway/datapath/trace"
	"slipway/internal/testnet"
	"slipway/topology"
)

// TestFaults injects each fault into a running lab of each mode that it applies
// to. The trace has to name it, predicted and observed, and be green again once
// the fault is healed.
func TestFaults(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF)
	board := newBoard()
	t.Run("modes", func(t *testing.T) {
		for _, mode := range topology.ModeNames() {
			t.Run(string(mode), func(t *testing.T) {
				t.Parallel()
				l := up(t, mode)
				l.green(t, nil)
				for _, f := range faults() {
					if f.in(mode) {
						t.Run(f.name, func(t *testing.T) { l.try(t, f, board) })
					}
				}
			})
		}
	})
	t.Log("\n" + board.String())
	board.write(t)
}

// defaultTrace is the client to the server on the other node.
var defaultTrace = []string{"client", "web:80"}

// try injects a fault, judges the trace, and heals.
func (l *testLab) try(t *testing.T, f fault, b *board) {
	args := f.trace
	if args == nil {
		args = defaultTrace
	}
	broken := f.break_ != nil || f.breaks != nil
	if broken {
		defer l.heal(t, f)
	}
	l.runAll(t, f.break_)
	if f.breaks != nil {
		f.breaks(t, l)
	}
	l.await(t, "the fault is there", f.broken)
	tr, said := l.trace(t, args...)
	w := f.want
	w.device = l.names.Replace(w.device)
	c := cell{predicted: w.judge(tr.PredictedVerdict, tr.PredictedCause, false), observed: "nothing was observed"}
	if tr.ObservedVerdict != nil {
		c.observed = w.judge(*tr.ObservedVerdict, tr.ObservedCause, true)
		c.silent = c.observed == "" && tr.ObservedCause.Reason != w.reason
	}
	c.owned = c.observed == "" && !c.silent && isUnknown(tr)
	c.agree = tr.Agree != nil && *tr.Agree
	b.score(f.name, l.mode, c)
	if !c.good() {
		t.Errorf("%s (%s)\npredicted: %s\nobserved: %s\nagree: %v %+v\nwant      %+v\npredicted %v %s\nobserved  %v %s\n%s", said.Argv, said.Took, c.predicted, c.observed,
			c.agree, tr.Disagreements, w, tr.PredictedVerdict, inShort(tr.PredictedCause), tr.ObservedVerdict, inShort(tr.ObservedCause), said.Err+seenAt(tr))
	}
}

// inShort is a cause on one line.
func inShort(c *trace.Cause) string {
	raw, err := json.Marshal(c)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// seenAt are the places of an observation, with what it rests on.
func seenAt(tr trace.Trace) string {
	var b strings.Builder
	for _, h := range tr.Observed {
		fmt.Fprintf(&b, "%d %s %s %s +%d ns: %s\n", h.Seq, h.Place, h.Device, h.Stage, h.TimeNs, strings.Join(h.Evidence, ", "))
	}
	return b.String() + strings.Join(tr.Notes, "\n")
}

// isUnknown reports whether a prediction owns that it cannot be made, and says
// which rule or feature is to blame.
func isUnknown(tr trace.Trace) bool {
	c := tr.PredictedCause
	return tr.PredictedVerdict == trace.Unknown && c != nil && c.Reason == trace.ReasonNotEvaluated && c.Rule != ""
}

// judge says what is wrong with a verdict and its cause; empty if nothing is.
// Which table and which device decided is for the prediction to say: the
// kernel's events hold neither.
func (w want) judge(v trace.Verdict, c *trace.Cause, observed bool) string {
	if c == nil {
		return fmt.Sprintf("verdict %v without a cause", v)
	}
	var wrong []string
	check := func(what, got, want string) {
		if want != "" && got != want {
			wrong = append(wrong, fmt.Sprintf("%s %q, want %q", what, got, want))
		}
	}
	check("place", c.Place, w.place)
	if !observed {
		check("table", c.Table, w.table)
		if !slices.ContainsFunc([]string{c.Device, c.Rule, c.Text}, func(s string) bool { return strings.Contains(s, w.device) }) {
			wrong = append(wrong, fmt.Sprintf("device %q is not named", w.device))
		}
	}
	silent := observed && w.seen != "" && c.Reason == w.seen
	if !silent {
		check("reason", string(c.Reason), string(w.reason))
	}
	if !w.may(v, observed, silent) {
		check("verdict", v.String(), w.verdict.String())
	}
	if c.Reply != w.reply {
		wrong = append(wrong, fmt.Sprintf("reply %v, want %v", c.Reply, w.reply))
	}
	return strings.Join(wrong, "; ")
}

// may reports whether a verdict is right.
func (w want) may(v trace.Verdict, observed, silent bool) bool {
	switch {
	case v == w.verdict:
		return true
	case silent && w.seen == trace.ReasonNotSeen && v == trace.Unknown:
		return true // what became of it is not known
	case w.reason == trace.ReasonNoNeighbor:
		return v == trace.Dropped // the kernel tells the sender only after seconds
	}
	// A host limits how many errors it sends because of routes (net/ipv4/route.c,
	// ip_error: five at once, then one a second).
	return observed && v == trace.Dropped && slices.Contains([]trace.Reason{trace.ReasonNoRoute, trace.ReasonUnreachable, trace.ReasonProhibit}, w.reason)
}

// heal undoes a fault, repairs the lab as a user would, and wants a green trace.
func (l *testLab) heal(t *testing.T, f fault) {
	l.runAll(t, f.heal)
	if f.heals != nil {
		f.heals(t, l)
	}
	l.must(t, "up", "-q")
	l.await(t, "the fault is healed", f.healed)
	l.green(t, f.trace)
}

// await waits until commands succeed.
func (l *testLab) await(t *testing.T, what string, lines []string) {
	t.Helper()
	for _, line := range lines {
		testnet.Eventually(t, patience, what, func() (bool, string) {
			s := l.run(t, line)
			return s.Code == 0, s.String()
		})
	}
}

// green wants a packet to be delivered, as predicted.
func (l *testLab) green(t *testing.T, args []string) {
	t.Helper()
	if args == nil {
		args = defaultTrace
	}
	tr, said := l.trace(t, args...)
	if said.Code != 0 || tr.Verdict != trace.Delivered || tr.Agree == nil || !*tr.Agree {
		t.Errorf("%s: exit code %d, verdict %v, agree %v\npredicted %s\nobserved %s\ndisagreements %+v", said.Argv, said.Code, tr.Verdict, tr.Agree, inShort(tr.PredictedCause), inShort(tr.ObservedCause), tr.Disagreements)
	}
}
