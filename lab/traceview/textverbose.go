package traceview

import "fmt"

// explainWay writes one direction with every hop explained.
func explainWay(p *pen, d way) {
	wayHeading(p, d)
	var c clock
	n := 0
	for _, g := range groups(d.steps) {
		p.blank()
		p.line(0, placeSpans(g)...)
		for _, s := range g.steps {
			n++
			since := ""
			if now, ok := timeOf([]step{s}); ok {
				since = c.advance(now)
			}
			p.explained(d.compared, n, since, s)
		}
	}
}

// explained writes one hop: what it is, what decided, what changed.
func (p *pen) explained(compared bool, n int, since string, s step) {
	head := []span{{fmt.Sprintf("%4d ", n), faint}}
	if compared {
		head = append(head, span{s.mark.String() + " ", markStyle(s.mark)})
	}
	title := []span{{string(s.Stage), strong}}
	if s.Device != "" {
		title = append(title, span{s.Device, strong}, span{"·", faint})
	} else {
		title = append(title, span{"·", faint})
	}
	p.paragraph(head, since, append(title, outcome(s)...)...)
	right := p.right
	p.right = 0
	p.line(7, span{explain(s), normal})
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
	p.paragraph([]span{{fmt.Sprintf("       %-*s ", detailWidth, clip(name, detailWidth)), faint}}, "", words...)
}
