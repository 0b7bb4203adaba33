package traceview

import (
	"fmt"
	"io"
	"strings"

	"slipway/datapath/trace"
)

// Mermaid writes a sequence diagram: a participant for each place, an arrow for
// each passage between two, dotted where it was only predicted, and notes for
// what changed or ended the packet.
func Mermaid(w io.Writer, t *trace.Trace) error {
	var b strings.Builder
	fmt.Fprintf(&b, "sequenceDiagram\n  accTitle: %s\n  accDescr: %s\n", mermaidText(title(t)), mermaidText(verdictSpan(t).text+", "+agreementSpan(t).text))
	all := ways(t)
	ids := map[string]string{}
	for _, d := range all {
		for _, g := range groups(d.steps) {
			if _, ok := ids[g.place]; !ok {
				ids[g.place] = fmt.Sprintf("p%d", len(ids))
				fmt.Fprintf(&b, "  participant %s as %s\n", ids[g.place], mermaidText(g.place))
			}
		}
	}
	if len(ids) == 0 {
		b.WriteString("  participant p0 as unknown\n  Note over p0: no hop is predicted or observed\n")
	}
	for _, d := range all {
		mermaidWay(&b, d, ids)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("draw trace: %w", err)
	}
	return nil
}

func mermaidWay(b *strings.Builder, d way, ids map[string]string) {
	list := groups(d.steps)
	if len(list) == 0 {
		return
	}
	name := "request"
	if d.reply {
		name = "reply"
	}
	fmt.Fprintf(b, "  Note over %s: %s: %s\n", ids[list[0].place], name, mermaidText(packetLine(d.start())))
	var last [2]*step // the last one that was predicted, and observed
	for _, g := range list {
		for i := range g.steps {
			s := &g.steps[i]
			on := [2]bool{s.pred != nil, s.obs != nil || s.mark == plain && d.compared && !s.ghost}
			from := last[0]
			if on[1] {
				from = last[1]
			}
			if from != nil && placeOf(from.Hop) != g.place {
				fmt.Fprintf(b, "  %s%s%s: %s\n", ids[placeOf(from.Hop)], mermaidArrow(s), ids[g.place], mermaidText(passageLabel(from, s)))
			}
			if !mergeable([]step{*s}) && !quiet(*s) && !untold(*s) {
				fmt.Fprintf(b, "  Note over %s: %s\n", ids[g.place], mermaidText(noteLabel(*s)))
			}
			for side := range on {
				if on[side] {
					last[side] = s
				}
			}
		}
	}
}

func mermaidArrow(s *step) string {
	if s.mark == onlyPredicted || s.ghost {
		return "-->>"
	}
	return "->>"
}

// passageLabel names the two devices of a passage, and what is on the wire.
func passageLabel(from, to *step) string {
	s := orUnknown(from.Device) + " → " + orUnknown(to.Device)
	if o := to.Packet.Outer; o != nil {
		s += " (" + orUnknown(o.Type) + ")"
	}
	switch {
	case to.mark == onlyPredicted || to.ghost:
		s += " only predicted"
	case to.mark == onlyObserved:
		s += " only observed"
	}
	return s
}

// noteLabel is a short form of what a step did; rules are too long here.
func noteLabel(s step) string {
	text := clip(string(s.Stage)+" "+words(outcome(s)), 100)
	if s.mark == onlyPredicted || s.ghost {
		text += " (only predicted)"
	}
	return text
}

// mermaidText makes text safe: "#" begins an entity and ";" ends a statement,
// "%%" begins a comment, and angle brackets are HTML.
func mermaidText(s string) string {
	return strings.NewReplacer("#", "#35;", ";", "#59;", "%", "#37;", "<", "#lt;", ">", "#gt;", "\"", "#quot;", "{", "#123;", "}", "#125;").Replace(clean(s))
}
