package report

import (
	"fmt"
	"io"
	"strings"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
)

// Headline counts the verdicts.
func (c *Comparison) Headline() string {
	var out []string
	for _, v := range []Verdict{Slower, Faster, NoEvidence, OnlyA, OnlyB} {
		if n := c.Count(v); n > 0 || v == Slower || v == Faster {
			word := string(v)
			if v == NoEvidence {
				word = "without evidence of a difference"
			}
			out = append(out, fmt.Sprintf("%d %s", n, word))
		}
	}
	return "B against A: " + strings.Join(out, ", ")
}

// Text writes the findings for a terminal, by series, what is slower first.
func (c *Comparison) Text(w io.Writer) error {
	var b strings.Builder
	wrap := func(text string) { b.WriteString(lipgloss.Wrap(text, tableWidth, "") + "\n") }
	for _, v := range []Verdict{Slower, Faster, NoEvidence} {
		c.part(&b, v)
	}
	for _, f := range c.Findings {
		if f.Verdict == OnlyA || f.Verdict == OnlyB {
			wrap(strings.TrimSpace(fmt.Sprintf("%s: %s, %s %s", f.Verdict, f.Variant, f.series.title(), f.Metric)))
		}
	}
	for _, t := range c.Warnings {
		wrap("warning: " + t)
	}
	wrap(fmt.Sprintf("B÷A with its interval at 95 %% confidence, of each metric alone; p is corrected for the %d metrics tested, so that runs of the same thing differ in any of them with a probability of at most 5 %%.", c.Tested))
	wrap(c.Headline())
	return written(w, b.String())
}

// part writes the findings of one verdict.
func (c *Comparison) part(b *strings.Builder, v Verdict) {
	var rows [][]string
	last := ""
	for _, f := range c.Findings {
		if f.Verdict != v {
			continue
		}
		if at := f.Variant + " · " + f.series.title(); at != last {
			rows, last = append(rows, []string{at}), at
		}
		rows = append(rows, f.cells())
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "━━ %s\n\n", v)
	var some [][]string
	flush := func() {
		if len(some) > 0 {
			b.WriteString(findings(some) + "\n")
		}
		some = nil
	}
	for _, r := range rows {
		if len(r) == 1 {
			flush()
			b.WriteString(lipgloss.Wrap(r[0], tableWidth, "") + "\n")
			continue
		}
		some = append(some, r)
	}
	flush()
}

func (f *Finding) cells() []string {
	r := row{name: f.Metric, better: f.Better, scale: scaleOf(f.Unit, f.A.Median, f.B.Median)}
	by, p := "", ""
	if f.Change != nil {
		by = fmt.Sprintf("×%s (%s–%s)", factor(f.Change.Median), factor(f.Change.Low), factor(f.Change.High))
	}
	if f.tested {
		p = "p " + number(f.Adjusted)
	}
	return []string{"  " + r.label(), r.value(*f.A), r.value(*f.B), by, p + strings.Repeat("; ", min(1, len(p)*len(f.Why))) + f.Why}
}

// findings aligns the rows; reasons are wrapped to what is left.
func findings(rows [][]string) string {
	t := table.New().Border(lipgloss.HiddenBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderHeader(false).BorderColumn(false).Rows(rows...).Width(tableWidth).Wrap(true).
		StyleFunc(func(_, _ int) lipgloss.Style { return lipgloss.NewStyle().PaddingRight(gap) })
	var b strings.Builder
	for l := range strings.Lines(t.String()) {
		b.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	return b.String()
}
