package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// csvHead names the columns of [CSV].
var csvHead = []string{"started", "variant", "workload", "path", "target", "params", "mtu", "offloads", "metric", "unit", "better", "round", "value"}

// CSV writes the raw figures in long form, one row for each round of each
// metric, in base units; a round without a figure has an empty value. Rounds
// count from 1.
func CSV(w io.Writer, r *Report) error {
	out := csv.NewWriter(w)
	rows := [][]string{csvHead}
	started := r.Started.UTC().Format(time.RFC3339)
	for i := range r.Series {
		s := &r.Series[i]
		for _, m := range s.Metrics {
			for round, v := range m.Rounds {
				value := ""
				if v != nil {
					value = strconv.FormatFloat(*v, 'g', -1, 64)
				}
				rows = append(rows, []string{started, s.Variant, s.Workload, s.Path, s.Target, s.params(), strconv.Itoa(s.MTU), s.Offloads,
					m.Name, m.Unit, string(m.Better), strconv.Itoa(round + 1), value})
			}
		}
	}
	if err := out.WriteAll(rows); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Markdown writes what [Table] does, with the conditions and the plan.
func Markdown(w io.Writer, r *Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n", escape(r.heading()))
	parts := r.parts()
	if sheets, _ := r.summary(parts); len(sheets) > 0 {
		fmt.Fprintf(&b, "\n### %s\n", summaryTitle)
		for _, s := range sheets {
			s.markdown(&b)
		}
		fmt.Fprintf(&b, "\n%s\n", escape(summaryLegend))
	}
	for _, p := range parts {
		if p.group != nil {
			fmt.Fprintf(&b, "\n### %s\n", escape(p.group.title))
			p.group.sheet().markdown(&b)
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n", escape(p.curve.heading()))
		if facts := p.curve.facts(); len(facts.rows) > 0 {
			facts.markdown(&b)
		}
		for _, c := range p.curve.brief() {
			fmt.Fprintf(&b, "\n%s\n", escape(c.label()))
			p.curve.sheet(c, row.cell).markdown(&b)
		}
	}
	fmt.Fprintf(&b, "\n%s\n\n", escape(r.legend()+curveLegend(parts)))
	for _, f := range append(r.Conditions.facts(), r.Plan.facts()...) {
		fmt.Fprintf(&b, "- %s: %s\n", f.Name, escape(f.Value))
	}
	for _, t := range r.Warnings {
		fmt.Fprintf(&b, "- **warning**: %s\n", escape(t))
	}
	for _, t := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", escape(t))
	}
	return written(w, b.String())
}

func writeRow(b *strings.Builder, cells []string) {
	for _, c := range cells {
		b.WriteString("| " + strings.ReplaceAll(escape(c), "\n", "<br>") + " ")
	}
	b.WriteString("|\n")
}

// escape keeps text from being read as Markdown or HTML.
var escape = strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "*", `\*`, "_", `\_`, "`", "\\`").Replace
