package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// group is one workload on one path: what the variants are compared in.
type group struct {
	at       int // place among the groups
	title    string
	variants []string
	series   []*Series // one for each variant
	rows     []row
}

// row is one metric of a group, all in one unit.
type row struct {
	name   string
	unit   string
	better Better
	scale  scale
	cells  []*Metric // one for each variant; nil where it has no such metric
}

// place is what a series measures, apart from the variant.
func (s *Series) place() string {
	return strings.Join([]string{s.Workload, s.Path, s.Target, s.params()}, "\x00")
}

// key is the series' identity in its report.
func (s *Series) key() string { return s.Variant + "\x00" + s.place() }

// params are sorted, "streams=4 write=128KiB".
func (s *Series) params() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s.Params)) {
		out = append(out, k+"="+s.Params[k])
	}
	return strings.Join(out, " ")
}

// title is place for people: "tcp-stream · other-node → pod · write=128KiB".
func (s *Series) title() string {
	t := s.Workload
	if s.Path != "" {
		t += " · " + s.Path
	}
	if s.Target != "" {
		t += " → " + s.Target
	}
	if p := s.params(); p != "" {
		t += " · " + p
	}
	return t
}

// groups puts the series that can be compared side by side, in the order in
// which the report has them.
func (r *Report) groups() []*group {
	var out []*group
	at := map[string]*group{}
	for i := range r.Series {
		s := &r.Series[i]
		g := at[s.place()]
		if g == nil {
			g = &group{at: len(out), title: s.title()}
			at[s.place()], out = g, append(out, g)
		}
		g.variants, g.series = append(g.variants, s.Variant), append(g.series, s)
	}
	for _, g := range out {
		g.fill()
	}
	return out
}

// fill lays out the metrics. Two of one name in different units are two rows.
func (g *group) fill() {
	type named struct{ name, unit string }
	var order []named
	for _, s := range g.series {
		for _, m := range s.Metrics {
			if n := (named{m.Name, m.Unit}); !slices.Contains(order, n) {
				order = append(order, n)
			}
		}
	}
	for _, n := range order {
		r := row{name: n.name, unit: n.unit}
		var tops []float64
		for _, s := range g.series {
			m := s.metric(n.name)
			if m == nil || m.Unit != n.unit {
				r.cells = append(r.cells, nil)
				continue
			}
			r.better = m.Better
			r.cells, tops = append(r.cells, m), append(tops, m.Summary.Median)
		}
		r.scale = scaleOf(n.unit, tops...)
		g.rows = append(g.rows, r)
	}
}

// label is the metric with its unit and an arrow to where it is better.
func (r row) label() string {
	out := r.name
	if r.scale.unit != "" {
		out += ", " + r.scale.unit
	}
	return out + map[Better]string{Higher: " ↑", Lower: " ↓", Neither: ""}[r.better]
}

// value writes "18.8 (18.1–19.4)", and how many rounds where these are too few
// for 95 %.
func (r row) value(s Summary) string {
	if s.N == 0 {
		return "–"
	}
	v := r.scale.format(s.Median, s.Low, s.High)
	out := v[0]
	if s.N > 1 {
		out += fmt.Sprintf(" (%s–%s)", v[1], v[2])
	}
	if s.Confidence < wantedConfidence {
		out += fmt.Sprintf(" n=%d", s.N)
	}
	return out
}

// cell writes a metric's value, and the ratio beneath it.
func (r row) cell(m *Metric, variant string) string {
	if m == nil {
		return ""
	}
	out := r.value(m.Summary)
	if ratio := m.ratio(variant); ratio != "" {
		out += "\n" + ratio
	}
	return out
}

// open reports whether the ratio leaves open which of both is larger: its
// interval has one in it, or there are too few rounds for 95 %.
func open(ratio *Summary) bool {
	return ratio.Confidence < wantedConfidence || ratio.Low <= 1 && 1 <= ratio.High
}

// ratio writes "×0.80 (0.74–0.86)", with ≈ where there is no evidence of a
// difference, and nothing where a metric has none.
func (m *Metric) ratio(variant string) string {
	switch {
	case m.Ratio == nil:
		return ""
	case m.Control == variant:
		return "the control"
	}
	out := "×" + factor(m.Ratio.Median)
	if m.Ratio.N > 1 {
		out += fmt.Sprintf(" (%s–%s)", factor(m.Ratio.Low), factor(m.Ratio.High))
	}
	if open(m.Ratio) {
		out += " ≈"
	}
	return out
}

// factor writes a ratio with two decimals, or three digits.
func factor(v float64) string {
	if v < 0.1 || v >= 10 {
		return number(v)
	}
	return fmt.Sprintf("%.2f", v)
}

// sheet is the group as a table: MTU and offloads, as far as they are known, and
// every metric.
func (g *group) sheet() sheet {
	out := sheet{heads: g.variants}
	mtu, offloads := []string{"MTU"}, []string{"offloads"}
	for _, s := range g.series {
		m := ""
		if s.MTU > 0 {
			m = fmt.Sprint(s.MTU)
		}
		mtu, offloads = append(mtu, m), append(offloads, s.Offloads)
	}
	for _, facts := range [][]string{mtu, offloads} {
		if someOf(facts[1:]) {
			out.rows = append(out.rows, facts)
		}
	}
	for _, r := range g.rows {
		line := []string{r.label()}
		for i, m := range r.cells {
			line = append(line, r.cell(m, g.variants[i]))
		}
		out.rows = append(out.rows, line)
	}
	return out
}

func someOf(v []string) bool { return slices.ContainsFunc(v, func(s string) bool { return s != "" }) }
