package mesh

import (
	"fmt"

	"slipway/installer/facts"
)

// Cell is a pair and what is known of it.
type Cell struct {
	Pair
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"`
	// By is the program that holds the port.
	By string `json:"by,omitempty"`
}

// Matrix is what became of all pairs, in their order.
type Matrix struct {
	Cells []Cell `json:"cells"`
}

// Closed are the cells whose way is not there.
func (m *Matrix) Closed() (out []Cell) {
	for _, c := range m.Cells {
		if !c.State.Reached() {
			out = append(out, c)
		}
	}
	return out
}

// Between are the cells from one host to another.
func (m *Matrix) Between(from, to string) (out []Cell) {
	for _, c := range m.Cells {
		if c.From == from && c.To == to {
			out = append(out, c)
		}
	}
	return out
}

// Held are the cells whose ports a service of the machine's own has, which can be
// reached.
func (m *Matrix) Held() (out []Cell) {
	for _, c := range m.Cells {
		if c.State == Held {
			out = append(out, c)
		}
	}
	return out
}

// matrix puts together what the hosts said.
func (t *trial) matrix() *Matrix {
	m := &Matrix{Cells: []Cell{}}
	for id, p := range t.pairs {
		place := Place{p.Protocol, p.Address, p.Port}
		c := Cell{Pair: p, State: Unknown}
		f, failed := t.failed[p.To][place.String()]
		o, tried := t.outcomes[id]
		switch {
		case t.broken[p.From] != nil && !tried:
			c.Reason = fmt.Sprintf("%s took no part", p.From)
		case t.broken[p.To] != nil && !tried:
			c.Reason = fmt.Sprintf("%s took no part", p.To)
		case failed && !f.Held:
			c.Reason = fmt.Sprintf("nobody can listen there: %s", f.Why)
		default:
			c.State, c.Reason = o.State, o.Reason
		}
		if failed && f.Held {
			c.By = holder(t.Facts[p.To], place)
		}
		if t.seen[id] {
			c.State, c.Reason = Open, "it arrives; its answer does not"
		}
		if f.Watched && c.State == Open {
			c.State = Held
		}
		m.Cells = append(m.Cells, c)
	}
	return m
}

// holder is the program that has a port.
func holder(f facts.Facts, p Place) string {
	for _, s := range f.Listening {
		if s.Protocol == string(p.Protocol) && s.Port == p.Port && (s.Address.IsUnspecified() || s.Address.Unmap() == p.Address) {
			if s.Program == "" {
				return "the kernel"
			}
			return s.Program
		}
	}
	return "another program"
}
