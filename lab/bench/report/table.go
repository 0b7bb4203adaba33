package report

import (
	"fmt"
	"io"
	"strings"

	"charm.land/lipgloss/v2"
)

// Table writes the report for a terminal, at most 120 columns wide: the summary,
// then a table for each workload and path with the variants as columns; where a
// parameter was varied, one of its values and the main metric.
func Table(w io.Writer, r *Report) error { return r.text(w, true) }

// fewParts are what is read at once without a summary's help.
const fewParts = 4

// Brief writes what [Table] does, but of a report with many parts the summary and
// the curves alone.
func Brief(w io.Writer, r *Report) error { return r.text(w, len(r.parts()) <= fewParts) }

// text writes the report for a terminal, with or without the tables of its parts.
func (r *Report) text(w io.Writer, details bool) error {
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
		if details || p.curve != nil {
			p.text(&b, wrap)
		}
	}
	b.WriteString("\n")
	if !details {
		wrap(fmt.Sprintf("%d cases, each with more metrics: -v prints them all, -o html draws them.", len(parts)))
	}
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

// text writes a part's tables.
func (p part) text(b *strings.Builder, wrap func(string)) {
	b.WriteString("\n")
	if p.group != nil {
		wrap("━━ " + p.group.title)
		p.group.sheet().text(b)
		return
	}
	wrap("━━ " + p.curve.heading())
	p.curve.facts().text(b)
	for _, c := range p.curve.brief() {
		b.WriteString("\n")
		wrap(c.label())
		p.curve.sheet(c).text(b)
	}
}
