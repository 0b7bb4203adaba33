package report

import (
	"fmt"
	"math"
	"slices"
)

// summary is a line for each case: its main metric in each variant, and the ratio.
// Of a curve it has the point that was measured first. Cases that only one
// variant has, controls for the most part, are a sheet of their own. At says which
// part each line is of, for both sheets.
func (r *Report) summary(parts []part) (sheets []sheet, at [][]int) {
	var many, alone sheet
	var manyAt, aloneAt []int
	for _, v := range r.variants() {
		if slices.ContainsFunc(parts, func(p part) bool { g := p.first(); return len(g.variants) > 1 && slices.Contains(g.variants, v) }) {
			many.heads = append(many.heads, v)
		}
	}
	var lone []string
	for i, p := range parts {
		g := p.first()
		m := g.main()
		if m == nil {
			continue
		}
		label := g.title + "\n  " + m.label()
		if len(g.variants) == 1 {
			if v := g.variants[0]; v != g.series[0].Path {
				label = g.title + " · " + v + "\n  " + m.label()
			}
			lone = append(lone, g.variants[0])
			alone.rows, aloneAt = append(alone.rows, []string{label, m.short(m.cells[0], g.variants[0])}), append(aloneAt, i)
			continue
		}
		line := []string{label}
		for _, v := range many.heads {
			cell := ""
			if at := slices.Index(g.variants, v); at >= 0 {
				cell = m.short(m.cells[at], v)
			}
			line = append(line, cell)
		}
		many.rows, manyAt = append(many.rows, line), append(manyAt, i)
	}
	alone.heads = []string{"alone"}
	if len(lone) > 0 && len(slices.Compact(slices.Sorted(slices.Values(lone)))) == 1 {
		alone.heads = lone[:1]
	}
	if len(many.rows)+len(alone.rows) < 2 { // the case itself says it
		return nil, nil
	}
	for _, s := range []struct {
		sheet
		at []int
	}{{many, manyAt}, {alone, aloneAt}} {
		if len(s.rows) > 0 {
			sheets, at = append(sheets, s.sheet), append(at, s.at)
		}
	}
	return sheets, at
}

// first is the group that was measured first.
func (p part) first() *group {
	if p.group != nil {
		return p.group
	}
	return slices.MinFunc(p.curve.points, func(a, b point) int { return a.group.at - b.group.at }).group
}

// variants are all that the report has, in the order of the plan.
func (r *Report) variants() []string {
	out := slices.Clone(r.Plan.Variants)
	for _, s := range r.Series {
		if !slices.Contains(out, s.Variant) {
			out = append(out, s.Variant)
		}
	}
	return out
}

// main is the row of the metric that stands for the group: what its series name,
// else the first with a direction. Nil if there is none.
func (g *group) main() *row {
	for _, s := range g.series {
		if i := slices.IndexFunc(g.rows, func(r row) bool { return r.name == s.Main && s.Main != "" }); i >= 0 {
			return &g.rows[i]
		}
	}
	if i := slices.IndexFunc(g.rows, func(r row) bool { return r.better != Neither }); i >= 0 {
		return &g.rows[i]
	}
	return nil
}

// short writes "20.0 ±2%" and beneath it "×0.50".
func (r row) short(m *Metric, variant string) string {
	if m == nil {
		return ""
	}
	out := r.around(m.Summary)
	switch {
	case m.Ratio == nil:
	case m.Control == variant:
		out += "\ncontrol"
	default:
		out += "\n×" + factor(m.Ratio.Median)
		if open(m.Ratio) {
			out += " ≈"
		}
	}
	return out
}

// around writes a median and how far its interval goes to the farther side.
func (r row) around(s Summary) string {
	if s.N == 0 {
		return "–"
	}
	out := r.scale.format(s.Median)[0]
	if s.Median != 0 && s.N > 1 {
		percent := 100 * max(s.High-s.Median, s.Median-s.Low) / math.Abs(s.Median)
		digits := 0
		if percent < 0.95 {
			digits = 1
		}
		out += fmt.Sprintf(" ±%.*f%%", digits, percent)
	}
	if s.Confidence < wantedConfidence {
		out += fmt.Sprintf(" n=%d", s.N)
	}
	return out
}
