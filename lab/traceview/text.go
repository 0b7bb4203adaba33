package traceview

import (
	"fmt"
	"io"
	"strings"

	"slipway/datapath/trace"
)

// TextOptions of [Text].
type TextOptions struct {
	Colour  bool // ANSI colours; the caller respects NO_COLOR
	Verbose bool // explain every hop
	Width   int  // columns; 0 is 100, and less than 40 is 40
}

// The widths of text, in columns.
const (
	defaultWidth = 100
	leastWidth   = 40
	fieldWidth   = 11
	timeWidth    = 9 // at least: " +12345.6"
)

// Text writes a trace for reading: the headline, the way of the request and of
// the reply with what was predicted and observed side by side, and the other
// ways that the packet could have gone. No line is longer than the width.
func Text(w io.Writer, t *trace.Trace, o TextOptions) error {
	p := &pen{width: o.Width, colour: o.Colour}
	if p.width == 0 {
		p.width = defaultWidth
	}
	p.width = max(p.width, leastWidth)
	headline(p, t)
	var c clock
	for _, d := range ways(t) {
		p.blank()
		p.right = timeColumn(d.steps)
		if o.Verbose {
			explainWay(p, d, &c)
		} else {
			pathOf(p, d, &c)
		}
		p.right = 0
	}
	branches(p, t, o.Verbose)
	footer(p, t)
	if _, err := io.WriteString(w, p.String()); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

func timed(steps []step) bool {
	for _, s := range steps {
		if s.obs != nil && (s.obs.TimeNs != 0 || s.obs.SinceNs != 0) {
			return true
		}
	}
	return false
}

// timeColumn is how wide the times of a way are; zero where there are none.
func timeColumn(steps []step) int {
	if !timed(steps) {
		return 0
	}
	width := timeWidth
	for _, s := range steps {
		if s.obs != nil {
			width = max(width, len(micros(s.obs.TimeNs))+2, len(micros(-s.obs.TimeNs))+2)
		}
	}
	return width
}

// headline is what a reader must know if he reads nothing else.
func headline(p *pen, t *trace.Trace) {
	p.line(0, span{endpointName(t.Source), strong}, span{"→", strong}, span{endpointName(t.Destination), strong}, span{about(t), faint})
	words := []span{verdictSpan(t), {"·", faint}, agreementSpan(t)}
	if t.AnswerNs > 0 {
		words = append(words, span{"·", faint}, span{"answered after " + micros(t.AnswerNs) + " µs", normal})
	}
	p.line(0, words...)
	if d := firstDisagreement(t); d != nil {
		p.field("differs", span{d.Text, bad})
		if n := len(t.Disagreements) - 1; n > 0 {
			p.field("", span{fmt.Sprintf("and in %d more, marked ≠ P O below", n), faint})
		}
	}
	for _, c := range causes(t) {
		if c.who != "" {
			p.field(c.who, verdictWord(c.verdict, c.cause))
		}
		if c.cause != nil {
			causeFields(p, c.cause)
		}
	}
	for _, e := range t.WhatIf {
		p.field("what if", span{e, warn})
	}
}

// field writes "  name    words".
func (p *pen) field(name string, words ...span) {
	p.paragraph([]span{{"  " + column(name, fieldWidth), faint}}, "", words...)
}

func causeFields(p *pen, c *trace.Cause) {
	where := []span{{orUnknown(first(c.Place, c.Namespace, c.Node)), strong}}
	if c.Node != "" && c.Node != c.Place {
		where = append(where, span{"on " + c.Node, normal})
	}
	if c.Device != "" {
		where = append(where, span{"device " + c.Device, normal})
	}
	where = append(where, span{"at " + orUnknown(string(c.Stage)), normal})
	if c.Reply {
		where = append(where, span{"(on the way back)", warn})
	}
	p.field("where", where...)
	p.field("why", span{first(c.Text, string(c.Reason), "unknown"), bad})
	if c.Rule != "" {
		p.field(first(c.Table, "rule"), span{c.Rule, verbatim})
	} else if c.Table != "" {
		p.field("decided by", span{c.Table, normal})
	}
	if c.Kernel != "" {
		p.field("kernel", span{c.Kernel, normal})
	}
	if c.Hint != "" {
		p.field("hint", span{c.Hint, good})
	}
}

// caused is a verdict's reason with whose it is; who is empty where both sides
// say the same or there is only one.
type caused struct {
	who     string
	verdict trace.Verdict
	cause   *trace.Cause
}

// causes are the reasons that a headline names: one where the sides agree.
func causes(t *trace.Trace) []caused {
	pc, oc := t.PredictedCause, t.ObservedCause
	switch {
	case !compared(t) || t.Agree != nil && *t.Agree:
		if c := mergeCauses(pc, oc); c != nil {
			return []caused{{cause: c}}
		}
		return nil
	case t.PredictedVerdict == *t.ObservedVerdict && pc == nil && oc == nil:
		return nil
	}
	return []caused{{"predicted", t.PredictedVerdict, pc}, {"observed", *t.ObservedVerdict, oc}}
}

// mergeCauses adds to what was observed what the prediction knows better.
func mergeCauses(pred, obs *trace.Cause) *trace.Cause {
	if obs == nil || pred == nil {
		if obs == nil {
			return pred
		}
		return obs
	}
	c := *obs
	for _, f := range []struct {
		to   *string
		from string
	}{{&c.Node, pred.Node}, {&c.Namespace, pred.Namespace}, {&c.Place, pred.Place}, {&c.Device, pred.Device}, {&c.Table, pred.Table}, {&c.Rule, pred.Rule}, {&c.Text, pred.Text}, {&c.Hint, pred.Hint}} {
		fill(f.to, f.from)
	}
	return &c
}

func endpointName(e trace.Endpoint) string {
	name := first(e.Service, e.Pod, e.Name, e.Node)
	where := addr(e.Address)
	if e.Port != 0 {
		where = hostPort(orUnknown(where), e.Port)
	}
	switch {
	case name == "" || name == where:
		return orUnknown(where)
	case where == "":
		return name
	}
	return name + " (" + where + ")"
}

// about is protocol, mode and lab.
func about(t *trace.Trace) string {
	var parts []string
	for _, s := range []string{t.Destination.Protocol, string(t.Mode)} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if t.Lab != "" {
		parts = append(parts, "lab "+t.Lab)
	}
	return strings.Join(parts, ", ")
}

func verdictSpan(t *trace.Trace) span {
	s := verdictWord(t.Verdict, mergeCauses(t.PredictedCause, t.ObservedCause))
	if t.ObservedVerdict == nil && t.Verdict != trace.Unknown {
		s.text = "WOULD BE " + s.text
	}
	return s
}

func verdictWord(v trace.Verdict, c *trace.Cause) span {
	text, st := strings.ToUpper(v.String()), bad
	switch v {
	case trace.Delivered:
		st = good
	case trace.Unknown:
		st = warn
	}
	if c != nil && v != trace.Delivered {
		if c.Reply {
			text += ": the request arrived, the answer did not"
		} else if place := first(c.Place, c.Node); place != "" {
			text += " at " + place
		}
	}
	return span{text, st}
}

func agreementSpan(t *trace.Trace) span {
	switch {
	case t.Agree != nil && *t.Agree:
		return span{"prediction and observation agree", good}
	case t.Agree != nil:
		return span{"PREDICTION AND OBSERVATION DIFFER", bad}
	case t.ObservedVerdict == nil:
		return span{"predicted only: nothing was sent", warn}
	case len(t.Predicted) == 0:
		return span{"observed only: nothing was predicted", warn}
	case t.PredictedVerdict == trace.Unknown:
		return span{"the prediction is unknown: nothing to compare", warn}
	}
	return span{"not compared", warn}
}

func firstDisagreement(t *trace.Trace) *trace.Disagreement {
	if len(t.Disagreements) == 0 {
		return nil
	}
	return &t.Disagreements[0]
}

// first is the first that is not empty.
func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

func micros(ns int64) string { return fmt.Sprintf("%.1f", float64(ns)/1e3) }
