package bench

import (
	"slices"
	"strings"
)

// Verdict says whether a figure reached its target.
type Verdict string

// The verdicts. A figure without a target has none.
const (
	Met    Verdict = "met"
	NotMet Verdict = "not met"
)

// Figure is one measured quantity beside its target.
type Figure struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Summary is over rounds; with N = 1 it is a single run, without spread.
	Summary
	// AtMost is the target, AtLeast the other kind of target; zero is none.
	AtMost  float64 `json:"atMost,omitempty"`
	AtLeast float64 `json:"atLeast,omitempty"`
	Verdict Verdict `json:"verdict,omitempty"`
}

// figure summarises rounds.
func figure(name, unit string, rounds ...float64) Figure {
	return Figure{Name: name, Unit: unit, Summary: Summarize(rounds)}
}

// atMost judges a figure by its median: the interval beside it shows how
// certain that is. A cost that is not positive was drowned by something else
// and meets nothing.
func (f Figure) atMost(target float64) Figure {
	f.AtMost, f.Verdict = target, NotMet
	if f.N > 0 && f.Median > 0 && f.Median <= target {
		f.Verdict = Met
	}
	return f
}

// atLeast is atMost the other way around.
func (f Figure) atLeast(target float64) Figure {
	f.AtLeast, f.Verdict = target, NotMet
	if f.N > 0 && f.Median >= target {
		f.Verdict = Met
	}
	return f
}

// Case is one lab, or one size of it.
type Case struct {
	Name    string   `json:"name"`
	Figures []Figure `json:"figures"`
}

// Figure finds a figure by its name.
func (c Case) Figure(name string) (Figure, bool) {
	i := slices.IndexFunc(c.Figures, func(f Figure) bool { return f.Name == name })
	if i < 0 {
		return Figure{}, false
	}
	return c.Figures[i], true
}

// Group is one table: cases side by side.
type Group struct {
	Part       Part       `json:"part"`
	Title      string     `json:"title"`
	Conditions Conditions `json:"conditions"`
	Cases      []Case     `json:"cases"`
	// Notes say how to read the figures and what went otherwise than wanted.
	Notes []string `json:"notes,omitempty"`
}

// rows lists the figures of all cases, each in the order of its case: one that
// only some cases have stands behind what it follows there.
func (g Group) rows() []Figure {
	var out []Figure
	find := func(name string) int {
		return slices.IndexFunc(out, func(f Figure) bool { return f.Name == name })
	}
	for _, c := range g.Cases {
		after := -1
		for _, f := range c.Figures {
			at := find(f.Name)
			if at < 0 {
				at = after + 1
				out = slices.Insert(out, at, f)
			}
			after = at
		}
	}
	return out
}

// ScaleReport is everything that the scale bench found.
type ScaleReport struct {
	Conditions Conditions `json:"conditions"`
	Groups     []Group    `json:"groups"`
}

// Missed names every figure that did not reach its target.
func (r ScaleReport) Missed() []string {
	var out []string
	for _, g := range r.Groups {
		for _, c := range g.Cases {
			for _, f := range c.Figures {
				if f.Verdict == NotMet {
					out = append(out, strings.Join([]string{c.Name, f.Name, strings.TrimSpace(f.value() + " " + f.Unit), "target " + f.target()}, ", "))
				}
			}
		}
	}
	return out
}

// judged counts the figures that have a target.
func (r ScaleReport) judged() int {
	n := 0
	for _, g := range r.Groups {
		for _, c := range g.Cases {
			for _, f := range c.Figures {
				if f.Verdict != "" {
					n++
				}
			}
		}
	}
	return n
}
