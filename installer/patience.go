package installer

import (
	"slices"
	"time"
)

// Patient is the plan with at least so much time for each thing that is waited for,
// as slow hosts need it. What is wanted of them is the same.
func (p Plan) Patient(atLeast time.Duration) Plan {
	p.Phases = slices.Clone(p.Phases)
	for i := range p.Phases {
		ph := &p.Phases[i]
		ph.Steps = slices.Clone(ph.Steps)
		for j := range ph.Steps {
			st := &ph.Steps[j]
			st.Work = slices.Clone(st.Work)
			for k := range st.Work {
				st.Work[k].Items = slices.Clone(st.Work[k].Items)
				for n, it := range st.Work[k].Items {
					if w, ok := it.(Wait); ok {
						w.Until = max(w.Until, atLeast)
						st.Work[k].Items[n] = w
					}
				}
			}
		}
	}
	return p
}
