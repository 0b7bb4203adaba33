package services

import (
	"slices"

	"slipway/topology"
)

// Comparison says how other nodes' rules of a service differ from those shown.
type Comparison struct {
	Compared  int          `json:"compared"` // nodes, the shown one included
	Of        int          `json:"of"`       // nodes that there are
	Same      []string     `json:"same"`     // the shown one first
	Different []Difference `json:"different"`
}

// Difference is a node whose rules differ.
type Difference struct {
	Node    string   `json:"node"`
	Missing []string `json:"missing,omitempty"` // rules of the shown node that it does not have
	Extra   []string `json:"extra,omitempty"`   // rules that only it has
}

// Compare holds a service's rules on other nodes against those of a view.
func Compare(s *topology.Snapshot, f Found, v *View, others []*Loaded) (*Comparison, error) {
	c := &Comparison{Compared: 1 + len(others), Of: len(Nodes(s)), Same: []string{v.Node}, Different: []Difference{}}
	ours := v.texts()
	for _, l := range others {
		other, err := Look(s, f, l)
		if err != nil {
			return nil, err
		}
		theirs := other.texts()
		d := Difference{Node: l.Node, Missing: without(ours, theirs), Extra: without(theirs, ours)}
		if len(d.Missing)+len(d.Extra) == 0 {
			c.Same = append(c.Same, l.Node)
		} else {
			c.Different = append(c.Different, d)
		}
	}
	return c, nil
}

// texts are all rules of a view, table filter's marked as such.
func (v *View) texts() []string {
	var out []string
	for _, p := range v.Ports {
		for _, e := range p.Entries {
			out = append(out, e.Rule.Text)
		}
		for _, r := range p.Refusals {
			out = append(out, "-t filter "+r.Rule.Text)
		}
		for _, c := range p.Chains {
			for _, r := range c.Rules {
				out = append(out, r.Text)
			}
		}
	}
	return out
}

func without(a, b []string) []string {
	have := map[string]bool{}
	for _, s := range b {
		have[s] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return have[s] })
}
