package traceview

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"strings"

	"slipway/datapath/trace"
)

//go:embed assets/drawing.css
var drawingCSS string

// SVG draws a trace: places as boxes with what the packet passes in them, the
// way as numbered arrows, and below it what happened at those numbers.
func SVG(w io.Writer, t *trace.Trace, sub Subtitles) error {
	all := ways(t)
	s := newScene(t, all, sub)
	arrows, arrived := s.moves(all)
	notes := legend(all, arrived)
	width := max(s.w, leastDrawing)
	height := s.h + len(notes)*noteH + 40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>\n%s</style>\n", esc(clean(title(t))), light.resolve(drawingCSS))
	fmt.Fprintf(&b, `<rect class="ground" width="%d" height="%d"/>`+"\n", width, height)
	text(&b, pad, 26, "title", clip(title(t), width/titleLetterW))
	text(&b, pad, 48, "verdict "+verdictClass(t.Verdict), clip(verdictSpan(t).text+" · "+agreementSpan(t).text, width/letterW))
	fmt.Fprintf(&b, `<g transform="translate(%d,0)">`+"\n", (width-s.w)/2)
	s.draw(&b, all, arrows)
	b.WriteString("</g>\n")
	for i, n := range notes {
		y := s.h + 24 + i*noteH
		if n.number != "" {
			fmt.Fprintf(&b, `<circle class="bead %s" cx="%d" cy="%d" r="9"/>`, n.class, pad+9, y-4)
			fmt.Fprintf(&b, `<text class="bead-n" x="%d" y="%d">%s</text>`+"\n", pad+9, y, n.number)
		}
		text(&b, pad+28, y, "note "+n.class, clip(n.text, (width-pad-36)/letterW))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("draw trace: %w", err)
	}
	return nil
}

// Sizes of what stands around the drawing.
const (
	leastDrawing = 900
	noteH        = 22
	titleLetterW = 11
	shortArrow   = 40
)

// title is source, destination and mode in a line.
func title(t *trace.Trace) string {
	s := endpointName(t.Source) + " → " + endpointName(t.Destination)
	if a := about(t); a != "" {
		s += ", " + a
	}
	return s
}

func verdictClass(v trace.Verdict) string { return "v-" + v.String() }

// draw writes boxes, chips and arrows.
func (s *scene) draw(b *strings.Builder, all []way, arrows []arrow) {
	b.WriteString(`<defs>` + "\n")
	for _, k := range []string{"request", "reply", "odd"} {
		fmt.Fprintf(b, `<marker id="tip-%s" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path class="tip %s" d="M0 1L10 5L0 9z"/></marker>`+"\n", k, k)
	}
	b.WriteString("</defs>\n")
	for _, f := range s.frames {
		fmt.Fprintf(b, `<rect class="frame %s" x="%d" y="%d" width="%d" height="%d" rx="10"/>`+"\n", f.kind, f.x, f.y, f.w, f.h)
		if f.kind == aSwitch {
			continue // its name goes where no port stands
		}
		text(b, f.x+pad, f.y+18, "place", clipMiddle(f.label, (f.w-pad)/letterW))
		text(b, f.x+pad, f.y+34, "sub", clip(f.subtitle(), int(float64(f.w-pad)/smallW)))
	}
	ends := s.endings(all)
	for i, c := range s.chips {
		s.drawChip(b, i, c, ends[i])
	}
	for _, f := range s.frames {
		if f.kind == aSwitch {
			text(b, f.x+pad, f.y+15, "place", clip(f.label, 20))
		}
	}
	for _, a := range arrows {
		drawArrow(b, a)
	}
	for _, a := range arrows {
		drawBead(b, a)
	}
}

func (f frame) subtitle() string {
	if f.kind == aPod && f.node != "" {
		return strings.TrimPrefix(f.sub+" on "+f.node, " ")
	}
	return f.sub
}

// endings are the classes of the chips where a packet ended.
func (s *scene) endings(all []way) map[int]string {
	out := map[int]string{}
	for _, d := range all {
		for _, st := range d.steps {
			switch st.Action {
			case trace.Drop, trace.Reject:
				out[s.chipOf(st.Hop)] = "lost"
			case trace.UnknownAction:
				out[s.chipOf(st.Hop)] = "odd"
			}
		}
	}
	return out
}

func (s *scene) drawChip(b *strings.Builder, i int, c chip, ending string) {
	class := "chip device"
	if c.kernel {
		class = "chip kernel"
	}
	fmt.Fprintf(b, `<g id="chip%d" class="%s"><rect class="body %s" x="%d" y="%d" width="%d" height="%d" rx="6"/>`, i, class, ending, c.x, c.y, c.w, c.h)
	fmt.Fprintf(b, `<text class="chip-label" x="%d" y="%d">%s</text></g>`+"\n", c.x+c.w/2, c.y+c.h/2+5, esc(clip(c.label, c.w/7)))
	x, y := c.x+c.w, c.y
	switch ending {
	case "lost":
		fmt.Fprintf(b, `<circle class="end lost" cx="%d" cy="%d" r="11"/><path class="cross" d="M%d %dl8 8m0 -8l-8 8"/>`+"\n", x, y, x-4, y-4)
	case "odd":
		fmt.Fprintf(b, `<circle class="end odd" cx="%d" cy="%d" r="11"/><text class="end-n" x="%d" y="%d">?</text>`+"\n", x, y, x, y+5)
	}
}

// class says whose arrow it is, and which side alone has it.
func (a arrow) class() string {
	k := "request"
	if a.reply {
		k = "reply"
	}
	switch {
	case !a.obs:
		return k + " only-predicted"
	case !a.pred:
		return k + " only-observed"
	}
	return k
}

func drawArrow(b *strings.Builder, a arrow) {
	tip := "request"
	if a.reply {
		tip = "reply"
	}
	if !a.pred {
		tip = "odd"
	}
	d := fmt.Sprintf("M%d %dL%d %d", a.x1, a.y1, a.x2, a.y2)
	if a.dip > 0 {
		d = fmt.Sprintf("M%d %dQ%d %d %d %d", a.x1, a.y1, (a.x1+a.x2)/2, a.y1+a.dip, a.x2, a.y2)
	}
	fmt.Fprintf(b, `<path id="arrow%d" class="arrow %s" d="%s" marker-end="url(#tip-%s)"/>`+"\n", a.number, a.class(), d, tip)
}

func drawBead(b *strings.Builder, a arrow) {
	x, y := (a.x1+a.x2)/2, (a.y1+a.y2+a.dip)/2
	switch n := a.y2 - a.y1; { // so that the tip of a short arrow is seen
	case a.x1 == a.x2 && n > 0 && n < shortArrow:
		y = a.y1 + 8
	case a.x1 == a.x2 && n < 0 && n > -shortArrow:
		y = a.y1 - 8
	}
	fmt.Fprintf(b, `<g id="bead%d"><circle class="bead %s" cx="%d" cy="%d" r="8"/><text class="bead-n" x="%d" y="%d">%d</text></g>`+"\n", a.number, a.class(), x, y, x, y+4, a.number)
}

// note is a line of the legend.
type note struct{ number, class, text string }

// legend tells what happened where, without what is no news.
func legend(all []way, arrived [][]int) []note {
	var out []note
	for w, d := range all {
		i := 0
		name := "request"
		if d.reply {
			name = "reply"
		}
		if len(d.steps) > 0 {
			out = append(out, note{class: name + " head", text: name + ": " + packetLine(d.start())})
		}
		if d.compared && d.unseen() {
			out = append(out, note{class: name, text: "predicted, but none of it was seen"})
			continue
		}
		for _, g := range groups(d.steps) {
			for _, s := range g.steps {
				n := arrived[w][i]
				i++
				if mergeable([]step{s}) || quiet(s) || untold(s) {
					continue
				}
				out = append(out, note{number: bead(n), class: name + " " + stepClass(s), text: legendLine(g.place, s)})
			}
		}
	}
	return out
}

// untold leaves out of a drawing that a rule let the packet pass.
func untold(s step) bool {
	hook := s.Stage != trace.Route && s.Stage != trace.Deliver
	return hook && (s.Action == trace.Pass || s.Action == trace.ForwardAction) && natWords(s) == nil && s.mark != differs && len(s.notes) == 0
}

func bead(n int) string {
	if n == 0 {
		return "·"
	}
	return fmt.Sprint(n)
}

func stepClass(s step) string {
	switch {
	case s.Action == trace.Drop || s.Action == trace.Reject:
		return "lost"
	case s.Action == trace.UnknownAction || s.mark == differs:
		return "odd"
	case s.mark == onlyPredicted || s.ghost:
		return "only-predicted"
	case s.mark == onlyObserved:
		return "only-observed"
	}
	return ""
}

func legendLine(place string, s step) string {
	line := place + " " + string(s.Stage) + ": " + words(outcome(s))
	if s.mark == differs && len(s.notes) > 0 {
		return s.notes[0]
	}
	switch {
	case s.mark == onlyPredicted || s.ghost:
		line += " (only predicted)"
	case s.mark == onlyObserved:
		line += " (only observed)"
	}
	if s.Rule != "" {
		line += " — " + s.Rule
	}
	return line
}

// words is the text of spans.
func words(list []span) string {
	var out []string
	for _, s := range list {
		out = append(out, s.text)
	}
	return strings.Join(out, " ")
}

func text(b *strings.Builder, x, y int, class, s string) {
	fmt.Fprintf(b, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, x, y, esc(s))
}

func esc(s string) string { return html.EscapeString(s) }
