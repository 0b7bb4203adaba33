package installer

import (
	"iter"
	"slices"
)

// Plan is everything that makes machines into a cluster, in order.
type Plan struct {
	Phases []Phase
}

// Phase is a part of the way that can be gone alone: "04-etcd".
type Phase struct {
	ID    string
	Title string
	About string // for somebody who learns: what it is for
	Steps []Step
}

// Step is done on all of its hosts at once; the next begins when all are done.
type Step struct {
	Name string
	Why  string
	Work []Work
}

// Work is what one host needs.
type Work struct {
	Host  string
	Items []Item
}

// Placed is an item, and where a plan has it.
type Placed struct {
	Phase, Step, Host string
	Item              Item
}

// Items are all of a plan, in its order.
func (p Plan) Items() iter.Seq[Placed] {
	return func(yield func(Placed) bool) {
		for _, ph := range p.Phases {
			for _, st := range ph.Steps {
				for _, w := range st.Work {
					for _, it := range w.Items {
						if !yield(Placed{ph.ID, st.Name, w.Host, it}) {
							return
						}
					}
				}
			}
		}
	}
}

// On is a phase as far as it concerns one host.
func (p Phase) On(host string) Phase {
	steps := p.Steps
	p.Steps = nil
	for _, st := range steps {
		st.Work = slices.DeleteFunc(slices.Clone(st.Work), func(w Work) bool { return w.Host != host })
		if len(st.Work) > 0 {
			p.Steps = append(p.Steps, st)
		}
	}
	return p
}

// Hosts are those of a phase, in the order in which they come up in it.
func (p Phase) Hosts() (out []string) {
	for _, st := range p.Steps {
		for _, w := range st.Work {
			if !slices.Contains(out, w.Host) {
				out = append(out, w.Host)
			}
		}
	}
	return out
}
