package report

import (
	"fmt"
	"slices"
	"strings"
)

// Conclude fills in what follows from the rounds: every metric's summary, its
// ratio to the same metric of the variant control where that ran the same
// workload on the same path, and the warnings. It belongs to the end of a run:
// whether more rounds are needed [Summarize] and [Narrow] tell meanwhile.
func (r *Report) Conclude(control string) {
	r.APIVersion, r.Kind = APIVersion, Kind
	for i := range r.Series {
		r.Series[i].fill()
	}
	for i := range r.Series {
		s := &r.Series[i]
		base := r.find(control, s)
		for j := range s.Metrics {
			m := &s.Metrics[j]
			m.Summary = Summarize(Values(m.Rounds), r.Plan.Seed)
			m.Ratio, m.Control = nil, ""
			if base != nil {
				m.relate(base, r.Plan.Seed)
			}
		}
	}
	r.warn()
}

// partOf parts the name of a sum from those of what it is made of, which are
// there only where they are not zero: "drops:NETFILTER_DROP" is of "drops".
const partOf = ":"

// isPart reports whether a metric is a part of another.
func (m *Metric) isPart() bool { return strings.Contains(m.Name, partOf) }

// fill gives parts of a sum the zeros of rounds that have the sum and not them.
func (s *Series) fill() {
	for i := range s.Metrics {
		m := &s.Metrics[i]
		name, _, is := strings.Cut(m.Name, partOf)
		sum := s.metric(name)
		if !is || sum == nil {
			continue
		}
		for len(m.Rounds) < len(sum.Rounds) {
			m.Rounds = append(m.Rounds, nil)
		}
		for j, v := range sum.Rounds {
			if v != nil && m.Rounds[j] == nil {
				m.Rounds[j] = new(float64)
			}
		}
	}
}

// find is the series of another variant that is otherwise the same.
func (r *Report) find(variant string, like *Series) *Series {
	for i := range r.Series {
		if s := &r.Series[i]; s.Variant == variant && s.place() == like.place() {
			return s
		}
	}
	return nil
}

// metric is the series' metric of that name.
func (s *Series) metric(name string) *Metric {
	for i := range s.Metrics {
		if s.Metrics[i].Name == name {
			return &s.Metrics[i]
		}
	}
	return nil
}

// mostRatio is how many times the control's a figure may be for that to say
// anything: beyond it the control has next to nothing of the kind, as a mode
// without a tunnel daemon has of that daemon's time.
const mostRatio = 1000

// relate sets the ratio to the control's metric. Counts that say nothing by
// themselves have none.
func (m *Metric) relate(base *Series, seed uint64) {
	c := base.metric(m.Name)
	if c == nil || m.Better == Neither || m.Unit != c.Unit {
		return
	}
	if of := Values(Ratios(m.Rounds, c.Rounds)); len(of) > 0 {
		s := Summarize(of, seed)
		if s.Median > mostRatio {
			return
		}
		m.Ratio, m.Control = &s, base.Variant
	}
}

// warn adds what conditions and rounds give reason to doubt.
func (r *Report) warn() {
	for _, w := range append(r.Conditions.Warnings(), r.thin()...) {
		if !slices.Contains(r.Warnings, w) {
			r.Warnings = append(r.Warnings, w)
		}
	}
}

// thin warns of series with too few rounds and of rounds that gave no figure.
func (r *Report) thin() (out []string) {
	few, lost, all := 0, 0, 0
	for _, s := range r.Series {
		for _, m := range s.Metrics {
			all++
			if m.Summary.N < fewestRounds {
				few++
			}
			if m.Summary.N < len(m.Rounds) {
				lost++
			}
		}
	}
	if few > 0 {
		out = append(out, fmt.Sprintf("%d of %d metrics have fewer than %d rounds, the fewest that give a 95 %% interval: theirs are the lowest and the highest round", few, all, fewestRounds))
	}
	if lost > 0 {
		out = append(out, fmt.Sprintf("%d of %d metrics lack the figure of at least one round", lost, all))
	}
	return out
}

// From where on conditions are worth a warning. A quiet virtual machine shows
// up to 1 % of steal; half a CPU of load before is somebody else's work, since
// the bench has not begun.
const (
	muchSteal = 2.0  // percent of the CPUs' time
	muchLoad  = 0.25 // of each CPU
	littleCPU = 2.0  // percent idle
)

// Warnings say what in the conditions makes figures doubtful.
func (c Conditions) Warnings() (out []string) {
	if c.StealPercent >= muchSteal {
		out = append(out, fmt.Sprintf("the hypervisor took %.1f %% of the CPUs' time: figures are lower and intervals wider than this machine's own", c.StealPercent))
	}
	if c.CPUs > 0 && c.LoadBefore >= muchLoad*float64(c.CPUs) {
		out = append(out, fmt.Sprintf("the load before was %.1f on %d CPUs: the machine was busy with other things", c.LoadBefore, c.CPUs))
	}
	if c.CPUs > 0 && c.IdlePercent <= littleCPU {
		out = append(out, fmt.Sprintf("%.1f %% of the CPUs' time was idle: figures are bounded by the CPUs that sender, receiver and datapath share", c.IdlePercent))
	}
	return out
}
