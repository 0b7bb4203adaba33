package report

// chart is one metric in the unit in which it is printed: bars, one for each
// variant of a group, or lines along a curve.
type chart struct {
	Label string      `json:"label"`
	Unit  string      `json:"unit"`
	Bars  []bar       `json:"bars,omitempty"`
	Lines []curveLine `json:"lines,omitempty"`
	// By is the parameter of lines, and Ticks its values.
	By    string `json:"by,omitempty"`
	Ticks []tick `json:"ticks,omitempty"`
	// LogX: the parameter spans decades.
	LogX bool `json:"logX,omitempty"`
	// Control is what ratios are to, empty where there are none.
	Control string `json:"control,omitempty"`
}

// bar is one variant's figures: an interval, its median, and every round.
type bar struct {
	mark
	Variant string     `json:"variant"`
	Rounds  []*float64 `json:"rounds"`
}

// curveLine is one variant's figures along a curve.
type curveLine struct {
	Variant string `json:"variant"`
	Points  []mark `json:"points"`
}

// mark is a median with its interval.
type mark struct {
	Tick   int      `json:"tick"` // of lines: which of the parameter's values
	Median float64  `json:"median"`
	Low    float64  `json:"low"`
	High   float64  `json:"high"`
	Text   string   `json:"text"`
	Ratio  *Summary `json:"ratio,omitempty"`
	Open   bool     `json:"open,omitempty"` // no evidence of a difference
	By     string   `json:"by,omitempty"`   // the ratio as text
}

type tick struct {
	Text string  `json:"text"`
	At   float64 `json:"at"`
}

// mark is a metric's place in a chart of the row.
func (r row) mark(m *Metric, variant string) mark {
	s := m.Summary
	return mark{
		Median: s.Median / r.scale.by, Low: s.Low / r.scale.by, High: s.High / r.scale.by, Text: r.value(s),
		Ratio: m.Ratio, By: m.ratio(variant), Open: m.Ratio != nil && m.Control != variant && open(m.Ratio),
	}
}

func (r row) chart(variants []string) chart {
	c := chart{Label: r.label(), Unit: r.scale.unit, Bars: []bar{}}
	for i, m := range r.cells {
		if m == nil || m.Summary.N == 0 {
			continue
		}
		b := bar{mark: r.mark(m, variants[i]), Variant: variants[i], Rounds: []*float64{}}
		for _, v := range m.Rounds {
			if v != nil {
				scaled := *v / r.scale.by
				v = &scaled
			}
			b.Rounds = append(b.Rounds, v)
		}
		if m.Ratio != nil {
			c.Control = m.Control
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}

// decade is from which ratio of a parameter's ends on its axis is logarithmic.
const decade = 10

func (c *curve) chart(r curveRow) chart {
	first, last := c.points[0].at, c.points[len(c.points)-1].at
	out := chart{Label: r.label(), Unit: r.scale.unit, By: c.by, LogX: first > 0 && last/first >= decade}
	for _, p := range c.points {
		out.Ticks = append(out.Ticks, tick{p.text, p.at})
	}
	for v, variant := range c.variants {
		l := curveLine{Variant: variant}
		for i := range c.points {
			m := r.cells[i][v]
			if m == nil || m.Summary.N == 0 {
				continue
			}
			at := r.mark(m, variant)
			at.Tick = i
			l.Points = append(l.Points, at)
			if m.Ratio != nil {
				out.Control = m.Control
			}
		}
		if len(l.Points) > 0 {
			out.Lines = append(out.Lines, l)
		}
	}
	return out
}
