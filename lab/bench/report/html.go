package report

import (
	"bytes"
	_ "embed" // the page and its charts
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

var (
	//go:embed assets/page.html
	pageText string
	//go:embed assets/page.css
	pageStyle string
	//go:embed assets/page.js
	pageScript string
	//go:embed assets/echarts.js
	chartScript string
	//go:embed assets/echarts.LICENSE.txt
	chartLicence string

	pageTemplate = template.Must(template.New("page").Parse(pageText))
)

// page is what the template fills in.
type page struct {
	Heading, Legend  string
	Conditions, Plan []pair
	Warnings, Notes  []string
	Groups           []pageGroup
	Style            template.CSS
	Library, Script  template.JS
	Licence          string
	Charts, Raw      template.JS // JSON, which json.Marshal keeps free of </script>
}

type pageGroup struct {
	Title    string
	Variants []string
	Rows     [][]string // label, then a cell for each variant
	Charts   []chart
}

// chart is one metric of a group in the unit in which it is printed.
type chart struct {
	Label string `json:"label"`
	Unit  string `json:"unit"`
	Bars  []bar  `json:"bars"`
	// Control is what ratios are to, empty where there are none.
	Control string `json:"control,omitempty"`
}

// bar is one variant's figures: an interval, its median, and every round.
type bar struct {
	Variant string     `json:"variant"`
	Rounds  []*float64 `json:"rounds"`
	Median  float64    `json:"median"`
	Low     float64    `json:"low"`
	High    float64    `json:"high"`
	Text    string     `json:"text"`
	Ratio   *Summary   `json:"ratio,omitempty"`
	Open    bool       `json:"open,omitempty"` // no evidence of a difference
	By      string     `json:"by,omitempty"`   // the ratio as text
}

// HTML writes one page that needs nothing else, a network least of all: charts
// with every round and the intervals, the same as tables, conditions, plan and
// the raw report. It is dark where the reader's system is, and can be printed.
func HTML(w io.Writer, r *Report) error {
	p := page{
		Heading: r.heading(), Legend: r.legend(), Conditions: r.Conditions.facts(), Plan: r.Plan.facts(), Warnings: r.Warnings, Notes: r.Notes,
		Style: template.CSS(pageStyle), Library: template.JS(chartScript), Script: template.JS(pageScript), //nolint:gosec // our own files
		Licence: chartLicence,
	}
	var charts [][]chart
	for _, g := range r.groups() {
		p.Groups = append(p.Groups, g.page())
		charts = append(charts, p.Groups[len(p.Groups)-1].Charts)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	drawn, err := json.Marshal(charts)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	p.Raw, p.Charts = template.JS(raw), template.JS(drawn) //nolint:gosec // json.Marshal escapes <, > and &
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return written(w, b.String())
}

func (g *group) page() pageGroup {
	out := pageGroup{Title: g.title, Variants: g.variants}
	out.Rows = g.sheet().rows
	for _, r := range g.rows {
		if r.better != Neither { // counts are in the table
			out.Charts = append(out.Charts, r.chart(g.variants))
		}
	}
	return out
}

func (r row) chart(variants []string) chart {
	c := chart{Label: r.label(), Unit: r.scale.unit, Bars: []bar{}}
	for i, m := range r.cells {
		if m == nil || m.Summary.N == 0 {
			continue
		}
		s := m.Summary
		b := bar{
			Variant: variants[i], Median: s.Median / r.scale.by, Low: s.Low / r.scale.by, High: s.High / r.scale.by, Text: r.value(s),
			Ratio: m.Ratio, By: m.ratio(variants[i]), Rounds: []*float64{},
		}
		for _, v := range m.Rounds {
			if v != nil {
				scaled := *v / r.scale.by
				v = &scaled
			}
			b.Rounds = append(b.Rounds, v)
		}
		if m.Ratio != nil {
			b.Open, c.Control = m.Control != variants[i] && open(m.Ratio), m.Control
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}
