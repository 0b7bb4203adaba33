package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// fewestPoints make a curve; two are better read side by side.
const fewestPoints = 3

// curve is what one parameter does: groups that differ in nothing else.
type curve struct {
	title    string // without the parameter
	by       string // its name: "write"
	points   []point
	variants []string
}

// point is one value of a curve's parameter.
type point struct {
	text  string // "128KiB"
	at    float64
	group *group
}

// part is one thing of the report to be shown: a group or a curve.
type part struct {
	group *group
	curve *curve
}

// parts are the report's groups and curves, in the order in which it has them. A
// group that is a point of a curve is not shown by itself.
func (r *Report) parts() []part {
	groups := r.groups()
	curves := curvesOf(groups)
	shown := map[*curve]bool{}
	var out []part
	for _, g := range groups {
		of := curves[g]
		if len(of) == 0 {
			out = append(out, part{group: g})
		}
		for _, c := range of {
			if !shown[c] {
				shown[c], out = true, append(out, part{curve: c})
			}
		}
	}
	return out
}

// curvesOf finds the curves, by the groups that are their points. Where the
// values of several parameters make a grid, the one with most values is the
// curve's; further curves are there only for what is in no other.
func curvesOf(groups []*group) map[*group][]*curve {
	families := map[string]*curve{}
	var all []*curve
	for _, g := range groups {
		s := g.series[0]
		for _, name := range slices.Sorted(maps.Keys(s.Params)) {
			at, dimension, ok := quantity(s.Params[name])
			if !ok {
				continue
			}
			rest := *s
			rest.Params = maps.Clone(s.Params)
			delete(rest.Params, name)
			key := rest.place() + "\x00" + name + "\x00" + dimension
			c := families[key]
			if c == nil {
				c = &curve{title: rest.title(), by: name}
				families[key], all = c, append(all, c)
			}
			c.points = append(c.points, point{s.Params[name], at, g})
		}
	}
	slices.SortStableFunc(all, func(a, b *curve) int { return cmp.Compare(len(b.points), len(a.points)) })
	out := map[*group][]*curve{}
	for _, c := range all {
		isNew := slices.ContainsFunc(c.points, func(p point) bool { return out[p.group] == nil })
		if len(c.points) < fewestPoints || !isNew {
			continue
		}
		c.order()
		for _, p := range c.points {
			out[p.group] = append(out[p.group], c)
		}
	}
	return out
}

// order sorts the points and gathers the variants.
func (c *curve) order() {
	slices.SortStableFunc(c.points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	for _, p := range c.points {
		for _, v := range p.group.variants {
			if !slices.Contains(c.variants, v) {
				c.variants = append(c.variants, v)
			}
		}
	}
}

// heading is the title with the parameter: "tcp-stream · other-node → pod, by write".
func (c *curve) heading() string { return c.title + ", by " + c.by }

// curveRow is one metric of a curve, all in one unit.
type curveRow struct {
	row               // without cells
	cells [][]*Metric // by point and variant; nil where there is none
}

// rows are the metrics, the main one first. A metric whose unit differs between
// points is as many rows.
func (c *curve) rows() []curveRow {
	var out []curveRow
	seen := map[string]bool{}
	main := ""
	for _, p := range c.points {
		if m := p.group.main(); m != nil && main == "" {
			main = m.name
		}
		for _, r := range p.group.rows {
			if key := r.name + "\x00" + r.unit; !seen[key] {
				seen[key] = true
				out = append(out, c.row(r))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b curveRow) int {
		return map[bool]int{true: -1}[a.name == main] - map[bool]int{true: -1}[b.name == main]
	})
	return out
}

func (c *curve) row(like row) curveRow {
	out := curveRow{row: row{name: like.name, unit: like.unit, better: like.better}}
	var tops []float64
	for _, p := range c.points {
		cells := make([]*Metric, len(c.variants))
		for i, v := range p.group.variants {
			m := p.group.series[i].metric(like.name)
			if m == nil || m.Unit != like.unit {
				continue
			}
			cells[slices.Index(c.variants, v)] = m
			tops = append(tops, m.Summary.Median)
		}
		out.cells = append(out.cells, cells)
	}
	out.scale = scaleOf(like.unit, tops...)
	return out
}

// sheet is the metric as a table: a row for each point, with cells as [row.cell]
// or [row.short] writes them.
func (c *curve) sheet(r curveRow, cell func(row, *Metric, string) string) sheet {
	out := sheet{corner: c.by, heads: c.variants}
	for i, p := range c.points {
		cells := make([]string, len(c.variants))
		for v, m := range r.cells[i] {
			cells[v] = cell(r.row, m, c.variants[v])
		}
		out.rows = append(out.rows, append([]string{p.text}, cells...))
	}
	return out
}

// facts are the MTU and offloads of each variant: of each point, if they differ.
func (c *curve) facts() sheet {
	out := sheet{heads: c.variants}
	mtu, offloads := make([]string, len(c.variants)), make([]string, len(c.variants))
	note := func(to *string, text string) {
		if text != "" && !slices.Contains(strings.Split(*to, " | "), text) {
			*to = strings.TrimPrefix(*to+" | "+text, " | ")
		}
	}
	for _, p := range c.points {
		for i, v := range p.group.variants {
			at, s := slices.Index(c.variants, v), p.group.series[i]
			note(&offloads[at], s.Offloads)
			if s.MTU > 0 {
				note(&mtu[at], fmt.Sprint(s.MTU))
			}
		}
	}
	for label, cells := range map[string][]string{"MTU": mtu, "offloads": offloads} {
		if someOf(cells) {
			out.rows = append(out.rows, append([]string{label}, cells...))
		}
	}
	slices.SortFunc(out.rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return out
}

// costs are the metrics that stand beside the main one where a curve is text.
var costs = []string{"cpu-per-gb", "cpu-per-request"}

// fewMetrics are all shown.
const fewMetrics = 8

// brief are the metrics of a curve that a text has: the main one and its cost, or
// all if they are few.
func (c *curve) brief() (out []curveRow) {
	all := c.rows()
	if len(all) <= fewMetrics {
		return all
	}
	for i, r := range all {
		if i == 0 || slices.Contains(costs, r.name) {
			out = append(out, r)
		}
	}
	return out
}
