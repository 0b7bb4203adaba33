package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"charm.land/lipgloss/v2"
)

// Table writes the report for a terminal, at most 120 columns wide: the summary,
// then a table for each workload and path with the variants as columns; where a
// parameter was varied, one for each metric with the parameter's values as rows.
func Table(w io.Writer, r *Report) error { return r.text(w, true, true) }

// fewParts are what is read at once without a summary's help.
const fewParts = 4

// Brief writes less than [Table]: of curves the metrics that matter most, without
// the ends of intervals, and of many other parts the summary alone.
func Brief(w io.Writer, r *Report) error { return r.text(w, len(r.parts()) <= fewParts, false) }

// text writes the report for a terminal, with or without the tables of its groups
// and all that is known of its curves.
func (r *Report) text(w io.Writer, groups, all bool) error {
	var b strings.Builder
	wrap := func(text string) { b.WriteString(lipgloss.Wrap(text, tableWidth, "") + "\n") }
	wrap(r.heading())
	parts := r.parts()
	sheets, _ := r.summary(parts)
	if len(sheets) > 0 {
		b.WriteString("\n")
		wrap("━━ " + summaryTitle)
		for _, s := range sheets {
			s.text(&b)
		}
		b.WriteString("\n")
		wrap(summaryLegend)
	}
	for _, p := range parts {
		if groups || p.curve != nil {
			p.text(&b, wrap, all)
		}
	}
	b.WriteString("\n")
	if !groups {
		wrap(fmt.Sprintf("%d cases, each with more metrics: -v prints them all, -o html draws them.", len(parts)))
	}
	legend := r.legend()
	if !all {
		legend += curveLegend(parts)
	}
	if !all && len(sheets) == 0 && slices.ContainsFunc(parts, func(p part) bool { return p.curve != nil }) { // whose cells are as the summary's
		legend += " " + aroundLegend
	}
	wrap(legend)
	wrap(line(r.Conditions.facts()))
	for _, t := range r.Warnings {
		wrap("warning: " + t)
	}
	for _, t := range r.Notes {
		wrap("note: " + t)
	}
	return written(w, b.String())
}

// text writes a part's tables; of a curve all metrics, or those that matter most,
// without their intervals' ends.
func (p part) text(b *strings.Builder, wrap func(string), all bool) {
	b.WriteString("\n")
	if p.group != nil {
		wrap("━━ " + p.group.title)
		p.group.sheet().text(b)
		return
	}
	wrap("━━ " + p.curve.heading())
	if facts := p.curve.facts(); len(facts.rows) > 0 {
		facts.text(b)
	}
	rows, cell := p.curve.brief(), row.short
	if all {
		rows, cell = p.curve.rows(), row.cell
	}
	for _, c := range rows {
		b.WriteString("\n")
		wrap(c.label())
		p.curve.sheet(c, cell).text(b)
	}
}
