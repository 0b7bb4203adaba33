package report

import (
	"io"
	"strings"

	"charm.land/lipgloss/v2"
)

// Table writes the report for a terminal, at most 120 columns wide: the summary,
// then a table for each workload and path with the variants as columns; where a
// parameter was varied, one of its values and the main metric.
func Table(w io.Writer, r *Report) error {
	var b strings.Builder
	wrap := func(text string) { b.WriteString(lipgloss.Wrap(text, tableWidth, "") + "\n") }
	wrap(r.heading())
	parts := r.parts()
	if sheets, _ := r.summary(parts); len(sheets) > 0 {
		b.WriteString("\n")
		wrap("━━ " + summaryTitle)
		for _, s := range sheets {
			s.text(&b)
		}
		b.WriteString("\n")
		wrap(summaryLegend)
	}
	for _, p := range parts {
		b.WriteString("\n")
		if p.group != nil {
			wrap("━━ " + p.group.title)
			p.group.sheet().text(&b)
			continue
		}
		wrap("━━ " + p.curve.heading())
		p.curve.facts().text(&b)
		for _, c := range p.curve.brief() {
			b.WriteString("\n")
			wrap(c.label())
			p.curve.sheet(c).text(&b)
		}
	}
	b.WriteString("\n")
	wrap(r.legend() + curveLegend(parts))
	wrap(line(r.Conditions.facts()))
	for _, t := range r.Warnings {
		wrap("warning: " + t)
	}
	for _, t := range r.Notes {
		wrap("note: " + t)
	}
	return written(w, b.String())
}
