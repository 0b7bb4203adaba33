package traceview

import (
	"fmt"
	"strings"

	"slipway/datapath/trace"
)

// explainWay writes one direction with every hop explained.
func explainWay(p *pen, d way, c *clock) {
	wayHeading(p, d)
	n, told := 0, map[trace.Stage]bool{}
	for _, g := range groups(d.steps) {
		p.blank()
		p.line(0, placeSpans(g)...)
		for _, s := range g.steps {
			n++
			since := ""
			if o := lastSeen([]step{s}); o != nil {
				since = c.since(o)
			}
			p.explained(d.compared, n, since, s)
			p.because(s, told)
		}
	}
}

// explained writes a hop's title.
func (p *pen) explained(compared bool, n int, since string, s step) {
	head := []span{{fmt.Sprintf("%4d ", n), faint}}
	if compared {
		head = append(head, span{s.mark.String() + " ", markStyle(s.mark)})
	}
	title := []span{{string(s.Stage), strong}}
	if s.Device != "" {
		title = append(title, span{s.Device, strong})
	}
	if said := outcome(s); s.Action != trace.Pass || s.Rule != "" || s.Route != "" {
		title = append(append(title, span{"·", faint}), said...)
	}
	p.paragraph(head, since, title...)
}

// because writes what a hop is, what decided, and what changed. What a stage is
// is said once.
func (p *pen) because(s step, told map[trace.Stage]bool) {
	right := p.right
	p.right = 0
	text := happened(s)
	if !told[s.Stage] {
		text = append([]string{lecture(s.Stage)}, text...)
		told[s.Stage] = true
	}
	if len(text) > 0 {
		p.line(7, span{strings.Join(text, " "), normal})
	}
	for _, f := range facts(s) {
		st := normal
		if f.Verbatim {
			st = verbatim
		}
		p.detail(f.Name, span{f.Value, st})
	}
	for _, c := range changes(s.before, s.Packet) {
		p.detail("changed", span{c.Layer + " " + c.Field, normal}, span{first(c.Before, "none") + " → " + first(c.After, "none"), rewrite})
	}
	for _, note := range s.notes {
		p.detail("differs", span{note, bad})
	}
	p.right = right
}

// detailWidth holds "filter rule".
const detailWidth = 12

func (p *pen) detail(name string, words ...span) {
	p.paragraph([]span{{"       " + column(name, detailWidth+1), faint}}, "", words...)
}
