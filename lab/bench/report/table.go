package report

import (
	"io"
	"strings"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// tableWidth is the widest that a table for a terminal gets, in columns.
const tableWidth = 120

// Table writes the report for a terminal, at most 120 columns wide: a table for
// each workload and path with the variants as columns. Where these do not fit
// side by side the table goes on below.
func Table(w io.Writer, r *Report) error {
	var b strings.Builder
	wrap := func(text string) { b.WriteString(lipgloss.Wrap(text, tableWidth, "") + "\n") }
	wrap(r.heading())
	for _, g := range r.groups() {
		b.WriteString("\n")
		wrap("━━ " + g.title)
		for from := 0; from < len(g.variants); {
			to := g.fit(from)
			b.WriteString("\n" + g.table(from, to))
			from = to
		}
	}
	b.WriteString("\n")
	wrap(r.legend())
	wrap(line(r.Conditions.facts()))
	for _, t := range r.Warnings {
		wrap("warning: " + t)
	}
	for _, t := range r.Notes {
		wrap("note: " + t)
	}
	return written(w, b.String())
}

// labels are the first column.
func (g *group) labels() []string {
	out := []string{"MTU", "offloads"}
	for _, r := range g.rows {
		out = append(out, r.label())
	}
	return out
}

// gap is the space between columns.
const gap = 2

// fit is up to which variant the columns from one on fit beside each other.
func (g *group) fit(from int) int {
	width := widest(g.labels()) + gap
	for i := from; i < len(g.variants); i++ {
		width += widest(append(g.column(i), g.variants[i])) + gap
		if width > tableWidth && i > from {
			return i
		}
	}
	return len(g.variants)
}

func widest(cells []string) (w int) {
	for _, c := range cells {
		w = max(w, lipgloss.Width(c))
	}
	return w
}

// column is what a variant has in each row, the ratio on a second line.
func (g *group) column(i int) []string {
	mtu, offloads := g.facts()
	out := []string{mtu[i], offloads[i]}
	for _, r := range g.rows {
		m := r.cells[i]
		if m == nil {
			out = append(out, "")
			continue
		}
		cell := r.value(m.Summary)
		if ratio := m.ratio(g.variants[i]); ratio != "" {
			cell += "\n" + ratio
		}
		out = append(out, cell)
	}
	return out
}

// table draws the variants from one to before another.
func (g *group) table(from, to int) string {
	labels := g.labels()
	rows := make([][]string, len(labels))
	for i, l := range labels {
		rows[i] = []string{l}
	}
	for v := from; v < to; v++ {
		for i, c := range g.column(v) {
			rows[i] = append(rows[i], c)
		}
	}
	var kept [][]string
	for i, r := range rows {
		if i > 1 || someOf(r[1:]) { // the facts that nobody gave are left out
			kept = append(kept, lines(r)...)
		}
	}
	t := table.New().Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).
		BorderRight(false).BorderColumn(false).Headers(append([]string{""}, g.variants[from:to]...)...).Rows(kept...).Wrap(false).
		StyleFunc(func(_, column int) lipgloss.Style {
			if column == 0 {
				return lipgloss.NewStyle().PaddingRight(gap)
			}
			return lipgloss.NewStyle().Align(lipgloss.Right).PaddingRight(gap)
		})
	var b strings.Builder
	for l := range strings.Lines(t.String()) {
		b.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	return b.String()
}

// lines makes a row of cells with a second line two rows.
func lines(cells []string) [][]string {
	first, second := make([]string, len(cells)), make([]string, len(cells))
	for i, c := range cells {
		first[i], second[i], _ = strings.Cut(c, "\n")
	}
	if someOf(second) {
		return [][]string{first, second}
	}
	return [][]string{first}
}
