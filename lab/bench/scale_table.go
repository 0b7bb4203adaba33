package bench

import (
	"fmt"
	"io"
	"strings"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// number writes a value with three digits or so.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100 || v == float64(int(v)):
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// value writes the median with its interval, or a single run's value.
func (f Figure) value() string {
	switch f.N {
	case 0:
		return "–"
	case 1:
		return number(f.Median)
	default:
		return fmt.Sprintf("%s (%s–%s)", number(f.Median), number(f.Low), number(f.High))
	}
}

// target writes what was wanted.
func (f Figure) target() string {
	switch {
	case f.AtMost != 0:
		return "≤ " + number(f.AtMost)
	case f.AtLeast != 0:
		return "≥ " + number(f.AtLeast)
	default:
		return ""
	}
}

// cell writes a value with its verdict.
func (f Figure) cell() string {
	switch f.Verdict {
	case Met:
		return f.value() + " ✓"
	case NotMet:
		return f.value() + " ✗"
	default:
		return f.value()
	}
}

// grid lays a group out: figures down, cases across, targets last.
func (g Group) grid() (head []string, rows [][]string) {
	head = []string{""}
	for _, c := range g.Cases {
		head = append(head, c.Name)
	}
	head = append(head, "target")
	for _, f := range g.rows() {
		label, target := f.Name, ""
		if f.Unit != "" {
			label += ", " + f.Unit
		}
		row := []string{label}
		for _, c := range g.Cases {
			have, ok := c.Figure(f.Name)
			if !ok {
				row = append(row, "")
				continue
			}
			row = append(row, have.cell())
			if have.AtMost != 0 { // the same for all cases; counts have their own
				target = have.target()
			} else if have.AtLeast != 0 {
				target = "all"
			}
		}
		rows = append(rows, append(row, target))
	}
	return head, rows
}

// WriteTable writes the groups as aligned tables for a terminal.
func (r ScaleReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	for _, g := range r.Groups {
		head, rows := g.grid()
		t := table.New().Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).
			BorderRight(false).BorderColumn(false).Headers(head...).Rows(rows...).
			StyleFunc(func(_, column int) lipgloss.Style {
				if column == 0 {
					return lipgloss.NewStyle().PaddingRight(2)
				}
				return lipgloss.NewStyle().Align(lipgloss.Right).PaddingRight(2)
			})
		fmt.Fprintf(&b, "━━ %s\n\n%s\n", g.Title, trimRight(t.String()))
		for _, n := range g.notes() {
			b.WriteString(n + "\n")
		}
		b.WriteString("\n")
	}
	for _, l := range r.closing() {
		b.WriteString(l + "\n")
	}
	return written(w, b.String())
}

// WriteMarkdown writes the groups as Markdown tables.
func (r ScaleReport) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	for _, g := range r.Groups {
		head, rows := g.grid()
		fmt.Fprintf(&b, "### %s\n\n| %s |\n|%s\n", g.Title, strings.Join(head, " | "), "---|"+strings.Repeat("--:|", len(head)-1))
		for _, row := range rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		b.WriteString("\n")
		for _, n := range g.notes() {
			b.WriteString("- " + n + "\n")
		}
		b.WriteString("\n")
	}
	for _, l := range r.closing() {
		b.WriteString(l + "\n")
	}
	return written(w, b.String())
}

func written(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// notes are the group's own and what the machine did meanwhile.
func (g Group) notes() []string {
	rounds, confidence := 1, 0.0
	for _, c := range g.Cases {
		for _, f := range c.Figures {
			if f.N > rounds {
				rounds, confidence = f.N, f.Confidence
			}
		}
	}
	spread := "Single runs, without spread."
	if rounds > 1 {
		spread = fmt.Sprintf("Medians of %d rounds; in brackets the range that holds the true median with %.0f %% confidence. Figures without a range are single runs.", rounds, 100*confidence)
	}
	c := g.Conditions
	return append(append([]string{}, g.Notes...), spread,
		fmt.Sprintf("Load %.1f before; %.0f %% of the CPUs' time idle and %.1f %% stolen by the hypervisor meanwhile.", c.LoadAverage, 100*c.Idle, 100*c.Steal))
}

// closing names the machine and every target that was missed.
func (r ScaleReport) closing() []string {
	c := r.Conditions
	out := []string{fmt.Sprintf("%s, Linux %s %s, %d CPUs, %s.", c.CPUModel, c.Kernel, c.Arch, c.CPUs, c.Time.Format("2 January 2006 15:04"))}
	if c.LoadAverage > float64(c.CPUs) {
		out = append(out, "The machine was busy with other work when the bench began: absolute times are too long.")
	}
	missed := r.Missed()
	out = append(out, fmt.Sprintf("Targets: %d of %d met.", r.judged()-len(missed), r.judged()))
	for _, m := range missed {
		out = append(out, "✗ not met: "+m)
	}
	return out
}

// trimRight takes the padding off the ends of lines.
func trimRight(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}
