package report

import (
	"strings"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// sheet is a table: heads are over its columns but the first, whose cells are
// labels. A cell may have a second line.
type sheet struct {
	corner string
	heads  []string
	rows   [][]string
}

// tableWidth is the widest that a table for a terminal gets, in columns.
const tableWidth = 120

// gap is the space between columns.
const gap = 2

// text writes the sheet for a terminal. Where its columns do not fit side by side
// it goes on below.
func (s sheet) text(b *strings.Builder) {
	for from := 0; from < len(s.heads); {
		to := s.fit(from)
		b.WriteString("\n" + s.block(from, to))
		from = to
	}
}

// column is a column with its head; 0 is that of the labels.
func (s sheet) column(i int) []string {
	out := []string{s.corner}
	if i > 0 {
		out[0] = s.heads[i-1]
	}
	for _, r := range s.rows {
		out = append(out, r[i])
	}
	return out
}

// fit is up to which head the columns from one on fit beside each other.
func (s sheet) fit(from int) int {
	width := widest(s.column(0)) + gap
	for i := from; i < len(s.heads); i++ {
		width += widest(s.column(i+1)) + gap
		if width > tableWidth && i > from {
			return i
		}
	}
	return len(s.heads)
}

func widest(cells []string) (w int) {
	for _, c := range cells {
		w = max(w, lipgloss.Width(c))
	}
	return w
}

// block draws the columns from one head to before another.
func (s sheet) block(from, to int) string {
	var kept [][]string
	for _, r := range s.rows {
		if cells := r[1+from : 1+to]; someOf(cells) {
			kept = append(kept, lines(append([]string{r[0]}, cells...))...)
		}
	}
	t := table.New().Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).
		BorderRight(false).BorderColumn(false).Headers(append([]string{s.corner}, s.heads[from:to]...)...).Rows(kept...).Wrap(false).
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

// markdown writes the sheet as a table of Markdown.
func (s sheet) markdown(b *strings.Builder) {
	b.WriteString("\n")
	writeRow(b, append([]string{s.corner}, s.heads...))
	b.WriteString("|---|" + strings.Repeat("--:|", len(s.heads)) + "\n")
	for _, r := range s.rows {
		writeRow(b, r)
	}
}
