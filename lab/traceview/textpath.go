package traceview

import (
	"fmt"
	"strings"

	"slipway/datapath/trace"
)

// labelWidth is the column that says what a line is about: "postrouting".
const labelWidth = 12

// entry is one line of a compact way: a step, or several that belong together.
type entry struct {
	mark   mark
	label  string
	words  []span
	under  [][]span // further lines that hang below
	steps  []step
	hidden bool // only its time counts
}

// pathOf writes one direction, a line for each thing that matters.
func pathOf(p *pen, d way, c *clock) {
	wayHeading(p, d)
	if d.reply && d.compared && d.unseen() {
		p.entry(true, "", entry{mark: onlyPredicted, label: "not seen", words: []span{{"predicted over " + strings.Join(placesOf(d), ", ") + "; -v shows each hop", normal}}})
		return
	}
	for _, g := range groups(d.steps) {
		p.line(0, placeSpans(g)...)
		for _, e := range entries(g) {
			if e.hidden {
				continue
			}
			since := ""
			if o := lastSeen(e.steps); o != nil {
				since = c.since(o)
			}
			p.entry(d.compared, since, e)
		}
	}
}

// unseen reports whether nothing of a way was observed.
func (d way) unseen() bool {
	for _, s := range d.steps {
		if s.obs != nil {
			return false
		}
	}
	return true
}

// placesOf are the places of a way in order.
func placesOf(d way) []string {
	var out []string
	for _, g := range groups(d.steps) {
		out = append(out, g.place)
	}
	return out
}

// clock turns times into differences. An answer may leave before the request's
// last step is over, the return of its memory: a step that began before the one
// shown last counts from the latest that began before it.
type clock struct {
	shown []int64
	on    string // whose clock they are of
}

// since is advance for a hop. Between two hosts' clocks there is no difference that
// says how long a packet took: after a change of clocks it is empty.
func (c *clock) since(o *trace.Hop) string {
	if changed := o.Clock != c.on && len(c.shown) > 0; changed {
		c.on, c.shown = o.Clock, []int64{o.TimeNs}
		return ""
	}
	c.on = o.Clock
	return c.advance(o.TimeNs)
}

func (c *clock) advance(now int64) string {
	before, found := int64(0), false
	for _, at := range c.shown {
		if at <= now && (!found || at > before) {
			before, found = at, true
		}
	}
	c.shown = append(c.shown, now)
	if !found {
		return micros(now)
	}
	return "+" + micros(now-before)
}

// lastSeen is the last observed one of steps, which tells their time; nil if none is.
func lastSeen(steps []step) *trace.Hop {
	for i := len(steps) - 1; i >= 0; i-- {
		if o := steps[i].obs; o != nil {
			return o
		}
	}
	return nil
}

func wayHeading(p *pen, d way) {
	name := "request"
	if d.reply {
		name = "reply"
	}
	if len(d.steps) == 0 {
		p.line(0, span{name, strong}, span{"unknown: no hop is predicted or observed", warn})
		return
	}
	margin := ""
	if p.right > 0 {
		margin = "µs"
	}
	p.paragraph([]span{{name + "  ", strong}}, margin, span{packetLine(d.start()), normal})
}

func placeSpans(g group) []span {
	out := []span{{g.place, strong}}
	if g.node != "" && g.node != g.place {
		out = append(out, span{"on " + g.node, faint})
	}
	return out
}

func (p *pen) entry(compared bool, since string, e entry) {
	var head []span
	if compared {
		head = append(head, span{"  " + e.mark.String() + " ", markStyle(e.mark)})
	} else {
		head = append(head, span{"  ", normal})
	}
	head = append(head, span{column(e.label, labelWidth), normal})
	p.paragraph(head, since, e.words...)
	indent := 2 + labelWidth
	if compared {
		indent += 2
	}
	for _, u := range e.under {
		p.line(indent, u...)
	}
}

func markStyle(m mark) style {
	switch m {
	case both:
		return good
	case differs:
		return bad
	case onlyPredicted, onlyObserved:
		return warn
	}
	return faint
}

// entries are the lines of one place.
func entries(g group) []entry {
	var out []entry
	for _, s := range g.steps {
		if n := len(out); n > 0 && mergeable(out[n-1].steps) && passage(s) && sameSide(out[n-1].mark, s.mark) {
			out[n-1].join(s)
			continue
		}
		out = append(out, newEntry(s))
	}
	for i := range out {
		if mergeable(out[i].steps) {
			out[i].label, out[i].words = across(out[i].steps)
			out[i].hidden = len(out[i].words) == 0
		}
	}
	return out
}

// passage reports whether a step is only a device or a bridge that lets the
// packet through as it is.
func passage(s step) bool {
	switch s.Stage {
	case trace.Ingress, trace.Egress, trace.Wire, trace.BridgeStage:
	default:
		return false
	}
	calm := s.Action == trace.Pass || s.Action == trace.ForwardAction || s.Action == ""
	return calm && len(s.notes) == 0
}

func mergeable(steps []step) bool {
	for _, s := range steps {
		if !passage(s) {
			return false
		}
	}
	return len(steps) > 0
}

// sameSide reports whether two marks may share a line: a lookup that nobody
// sees goes with anything.
func sameSide(a, b mark) bool { return a == b || a == plain || b == plain }

func (e *entry) join(s step) {
	e.steps = append(e.steps, s)
	if e.mark == plain {
		e.mark = s.mark
	}
}

// across describes devices passed one after the other; no words: nothing that
// a reader must know.
func across(steps []step) (string, []span) {
	var names []string
	label := ""
	for _, s := range steps {
		switch {
		case s.Stage == trace.BridgeStage && s.mark == plain:
			continue // the bridge shows as the device that is entered next, or is only crossed
		case label == "" && s.Stage == trace.Wire:
			label = "switch"
		case label == "" && s.Stage == trace.Ingress:
			label = "in"
		case label == "" && s.Stage == trace.Egress:
			label = "out"
		case label == "":
			label = "bridge"
		case label == "in" && s.Stage == trace.Egress:
			label = "in, out"
		}
		if n := orUnknown(s.Device); len(names) == 0 || names[len(names)-1] != n {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	words := []span{{strings.Join(names, " → "), normal}}
	if o := steps[len(steps)-1].Packet.Outer; o != nil {
		words = append(words, span{"(" + orUnknown(o.Type) + ")", tunnel})
	}
	return label, words
}

// newEntry is the line of one step.
func newEntry(s step) entry {
	e := entry{mark: s.mark, label: string(s.Stage), steps: []step{s}, hidden: quiet(s)}
	if s.mark == differs {
		e.words = []span{{"predicted", faint}}
		e.words = append(e.words, outcome(side(s, s.pred))...)
		e.under = append(e.under, append([]span{{"observed ", faint}}, outcome(side(s, s.obs))...))
	} else {
		e.words = outcome(s)
	}
	if s.chance > 0 {
		e.words = append(e.words, span{fmt.Sprintf("(chance %s)", percent(s.chance)), warn})
	}
	if s.Rule != "" {
		e.under = append(e.under, []span{ruleAt(s.Hop), {s.Rule, verbatim}})
	}
	for _, n := range s.notes {
		e.under = append(e.under, []span{{n, bad}})
	}
	return e
}

// side is a step with only one of its sides.
func side(s step, h *trace.Hop) step {
	if h != nil {
		s.Hop = *h
	}
	return s
}

// quiet reports whether a step is no news: a hook or a lookup that let the
// packet pass as it was, and is not itself in dispute.
func quiet(s step) bool {
	if s.mark == differs || len(s.notes) > 0 {
		return false
	}
	if s.Action != trace.Pass && s.Action != trace.ForwardAction && s.Action != "" || len(headerChanges(s)) > 0 {
		return false
	}
	switch s.Stage {
	case trace.Socket:
		return true
	case trace.Prerouting, trace.Input, trace.Forward, trace.Output, trace.Postrouting:
		return s.Rule == "" || strings.HasPrefix(s.Rule, "policy ACCEPT")
	case trace.Route:
		return s.Route == "" || strings.HasPrefix(s.Route, "local ")
	}
	return false
}

// headerChanges are the changes that a reader has to be told of beside the
// step's name.
func headerChanges(s step) []change {
	var out []change
	for _, c := range changes(s.before, s.Packet) {
		if c.Field != "length" && c.Field != "flags" {
			out = append(out, c)
		}
	}
	return out
}

// ruleAt names the table of the deciding rule and its number in its chain; the
// chain is in the rule itself, unless it is a policy.
func ruleAt(h trace.Hop) span {
	where := first(h.Table, "rule")
	for _, hit := range h.Rules {
		if hit.Rule != h.Rule {
			continue
		}
		where = hit.Table + " " + hit.Chain
		if strings.HasPrefix(hit.Rule, "-A ") {
			where = fmt.Sprintf("%s #%d", hit.Table, hit.Number)
		}
	}
	return span{where + ":", faint}
}

func percent(p float64) string {
	s := fmt.Sprintf("%.1f", 100*p)
	return strings.TrimSuffix(s, ".0") + " %"
}
