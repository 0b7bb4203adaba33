package trace

import (
	"fmt"
	"net/netip"
	"slices"
)

// Compare finds the branch of a prediction that an observed packet took, and
// says in what the two differ, in the order of the packet's way. It returns the
// index of the branch, -1 if there is none.
//
// Only what both sides can know is compared: lookups are seen by nobody, a
// masquerade's source port is the kernel's to choose, and where the prediction
// is unknown, anything may follow.
func Compare(p Prediction, o Observation) (best int, d []Disagreement) {
	best = -1
	var chosen comparison
	for i := range p.Branches {
		c := compareBranch(&p.Branches[i], &o)
		if best < 0 || c.closer(chosen) {
			best, chosen = i, c
		}
	}
	return best, chosen.found
}

// comparison is one branch held against an observation.
type comparison struct {
	endpoint bool // the packet went to the branch's endpoint
	common   int  // hops that both have before they part
	found    []Disagreement
}

// closer reports whether a is a better explanation of what was seen than b.
// Earlier branches are likelier, so that b wins a tie.
func (a comparison) closer(b comparison) bool {
	if a.endpoint != b.endpoint {
		return a.endpoint
	}
	if a.common != b.common {
		return a.common > b.common
	}
	return len(a.found) < len(b.found)
}

func compareBranch(b *Branch, o *Observation) comparison {
	m := &matcher{branch: b, seen: o, translated: map[netip.Addr]bool{}}
	m.learnTranslations()
	c := comparison{endpoint: m.sameEndpoint()}
	request := m.direction(b.Hops, o.Request, false)
	reply := m.direction(b.Reply, o.Reply, true)
	c.common = request + reply
	m.ends()
	c.found = m.found
	return c
}

// matcher collects the differences between a branch and an observation.
type matcher struct {
	branch *Branch
	seen   *Observation
	found  []Disagreement
	parted bool // the ways differ somewhere
	// translated are the addresses that stand for another source: ports next to
	// them are chosen by the kernel.
	translated map[netip.Addr]bool
}

func (m *matcher) add(reply bool, predicted, observed int, what, format string, args ...any) {
	m.found = append(m.found, Disagreement{
		Reply: reply, Predicted: predicted, Observed: observed, What: what, Text: fmt.Sprintf(format, args...),
	})
}

// learnTranslations notes which addresses the request's source is rewritten to,
// on either side.
func (m *matcher) learnTranslations() {
	for _, hops := range [][]Hop{m.branch.Hops, m.seen.Request} {
		for i, h := range hops {
			if i > 0 && h.Packet.Src != hops[0].Packet.Src {
				m.translated[h.Packet.Src] = true
			}
		}
	}
}

// sameEndpoint reports whether the request was last seen on its way to the
// branch's endpoint. A port that either side does not know does not count.
func (m *matcher) sameEndpoint() bool {
	e := m.branch.Endpoint
	if !e.IsValid() || len(m.seen.Request) == 0 {
		return false
	}
	last := m.seen.Request[len(m.seen.Request)-1].Packet.Destination()
	return e.Addr() == last.Addr() && (e.Port() == 0 || last.Port() == 0 || e.Port() == last.Port())
}

// direction compares the hops of the request or of the reply, and returns how
// many are common before the ways part.
func (m *matcher) direction(predicted, observed []Hop, reply bool) int {
	pairs := align(m.steps(predicted, false), m.steps(observed, true))
	same := map[string]string{}
	common, parted := 0, false
	for i, p := range pairs {
		switch {
		case p.predicted >= 0 && p.observed >= 0:
			if !parted {
				common++
			}
			m.hop(&predicted[p.predicted], &observed[p.observed], Disagreement{Reply: reply, Predicted: p.predicted, Observed: p.observed}, same)
		case !parted && m.parts(pairs, i, predicted, observed, reply):
			parted = true
		}
	}
	m.parted = m.parted || parted
	return common
}

// steps marks which hops the other side must have.
func (m *matcher) steps(hops []Hop, observed bool) []step {
	out := make([]step, len(hops))
	for i, h := range hops {
		out[i] = step{
			key:      hopKey{h.Namespace, h.Device, h.Stage},
			required: slices.Contains(m.seen.Observes, h.Stage) && (observed || !h.Hidden) && !h.refused(),
		}
	}
	return out
}

// refused reports whether a packet ended at the socket that it was for: the
// event is one of its end, which the verdicts are compared by.
func (h *Hop) refused() bool {
	return h.Stage == Deliver && (h.Action == Drop || h.Action == Reject)
}

// parts reports a hop that one side lacks, if that is a contradiction. It looks
// at the whole gap between two common hops, so that one text tells both sides.
func (m *matcher) parts(pairs []pair, at int, predicted, observed []Hop, reply bool) bool {
	p, o := gap(pairs, at)
	if p >= 0 && m.excused(reply) {
		p = -1
	}
	if o >= 0 && p < 0 && m.beyond(pairs, at, reply) {
		o = -1
	}
	if p < 0 && o < 0 {
		return false
	}
	before, after := around(pairs, at)
	m.add(reply, p, o, "path", "%s", pathText(before, after, p, o, predicted, observed))
	return true
}

// excused reports whether hops that were predicted may be missing because
// events were lost, or because the request was lost already, which is told
// where that happened: then there is no answer.
func (m *matcher) excused(reply bool) bool {
	return m.seen.Lost > 0 || (reply && len(m.seen.Reply) == 0 && (m.parted || m.withheld()))
}

// beyond reports whether an observed hop comes after the end of a prediction
// that says itself that it does not know how it goes on.
func (m *matcher) beyond(pairs []pair, at int, reply bool) bool {
	if reply && len(m.branch.Reply) == 0 && (m.parted || m.waits()) {
		return true // no answer was predicted, since the request was, or nobody waited
	}
	if m.branch.Verdict != Unknown {
		return false
	}
	for _, p := range pairs[at:] {
		if p.predicted >= 0 && p.required {
			return false
		}
	}
	// The request is known to the end where the reply is what is not.
	return reply || len(m.branch.Reply) == 0
}
