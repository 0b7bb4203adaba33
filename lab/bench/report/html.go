package report

import (
	"bytes"
	_ "embed" // the page and its charts
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"
	"sync"
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
)

// pageTemplate is parsed when a page is wanted: every command of the program
// would pay for it.
var pageTemplate = sync.OnceValue(func() *template.Template { return template.Must(template.New("page").Parse(pageText)) })

// page is what the template fills in.
type page struct {
	Heading, Legend  string
	Conditions, Plan []pair
	Warnings, Notes  []string
	Summary          []pageTable
	SummaryLegend    string
	Parts            []pagePart
	Style            template.CSS
	Library, Script  template.JS
	Licence          string
	Charts, Raw      template.JS // JSON, which json.Marshal keeps free of </script>
}

// pagePart is a group or a curve.
type pagePart struct {
	Number int // from 1
	Title  string
	Main   *pageChart
	// More are the charts of the other metrics, which are drawn when somebody asks
	// for them.
	More   []pageChart
	Tables []pageTable
	// Points are the tables of a curve's points, with all metrics.
	Points []pageTable
}

// pageChart is a place for a chart.
type pageChart struct {
	ID             int // in the page's list
	Label, Control string
}

type pageTable struct {
	Title, Corner string
	Heads         []string
	Rows          []pageRow
}

type pageRow struct {
	Label, Under string
	Part         int // where the label leads to, from 1; 0 is nowhere
	Cells        []string
}

func pageTableOf(title string, s sheet) pageTable {
	out := pageTable{Title: title, Corner: s.corner, Heads: s.heads}
	for _, r := range s.rows {
		label, under, _ := strings.Cut(r[0], "\n")
		out.Rows = append(out.Rows, pageRow{Label: label, Under: strings.TrimSpace(under), Cells: r[1:]})
	}
	return out
}

// drawings are what the page's script draws.
type drawings struct {
	Variants []string `json:"variants"` // their order gives each its colour
	Charts   []chart  `json:"charts"`
}

// HTML writes one page that needs nothing else, a network least of all: the
// summary, charts with every round and the intervals, lines where a parameter is
// varied, the same as tables, conditions, plan and the raw report. It is dark
// where the reader's system is, and can be printed.
func HTML(w io.Writer, r *Report) error {
	p := page{
		Heading: r.heading(), Legend: r.legend(), Conditions: r.Conditions.facts(), Plan: r.Plan.facts(), Warnings: r.Warnings, Notes: r.Notes,
		SummaryLegend: summaryLegend, Style: template.CSS(pageStyle), Library: template.JS(chartScript), Script: template.JS(pageScript), //nolint:gosec // our own files
		Licence: chartLicence,
	}
	d := drawings{Variants: r.variants()}
	parts := r.parts()
	for i, part := range parts {
		if part.group != nil {
			p.Parts = append(p.Parts, part.group.page(&d))
		} else {
			p.Parts = append(p.Parts, part.curve.page(&d))
		}
		p.Parts[i].Number = i + 1
	}
	sheets, at := r.summary(parts)
	for i, s := range sheets {
		t := pageTableOf("", s)
		for j := range t.Rows {
			t.Rows[j].Part = at[i][j] + 1
		}
		p.Summary = append(p.Summary, t)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	drawn, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	p.Raw, p.Charts = template.JS(raw), template.JS(drawn) //nolint:gosec // json.Marshal escapes <, > and &
	var b bytes.Buffer
	if err := pageTemplate().Execute(&b, p); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return written(w, b.String())
}

func (g *group) page(d *drawings) pagePart {
	out := pagePart{Title: g.title, Tables: []pageTable{pageTableOf("", g.sheet())}}
	main := g.main()
	for i := range g.rows {
		r := &g.rows[i]
		if r.better == Neither && r != main { // counts are in the table
			continue
		}
		out.add(d, r.chart(g.variants), r == main)
	}
	return out
}

// add gives a chart its place.
func (p *pagePart) add(d *drawings, c chart, main bool) {
	at := pageChart{ID: len(d.Charts), Label: c.Label, Control: c.Control}
	d.Charts = append(d.Charts, c)
	if main {
		p.Main = &at
	} else {
		p.More = append(p.More, at)
	}
}

func (c *curve) page(d *drawings) pagePart {
	out := pagePart{Title: c.heading()}
	if facts := c.facts(); len(facts.rows) > 0 {
		out.Tables = append(out.Tables, pageTableOf("", facts))
	}
	for i, r := range c.rows() {
		if i > 0 && r.better == Neither {
			continue
		}
		out.add(d, c.chart(r), i == 0)
		if i == 0 {
			out.Tables = append(out.Tables, pageTableOf(r.label(), c.sheet(r, row.cell)))
		}
	}
	for _, p := range c.points {
		out.Points = append(out.Points, pageTableOf(c.by+" "+p.text, p.group.sheet()))
	}
	return out
}
