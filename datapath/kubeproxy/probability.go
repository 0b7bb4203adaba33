package kubeproxy

import (
	"fmt"
	"strconv"
)

// Branch is one way on from a chain that shares traffic out.
type Branch struct {
	Rule   Rule
	Target string
	// Probability is the chance, 0 to 1, that a new connection leaves the chain
	// this way: the rule's own chance times that of getting as far.
	Probability float64
	// Affinity: the branch is only for clients that are remembered; a new one
	// never takes it.
	Affinity bool
	// Unknown: whether the branch is taken, or reached, depends on more than
	// chance. Probability is then 0 and means nothing.
	Unknown bool
}

// Probabilities computes what becomes of a new connection in a chain of table
// nat, such as a service's KUBE-SVC chain. Jumps to chains that only mark are
// no branches; every other jump is taken to be final, as a jump to kube-proxy's
// KUBE-SEP chains is.
func Probabilities(rs Ruleset, chain string) ([]Branch, error) {
	t := rs.Table("nat")
	if t == nil {
		return nil, fmt.Errorf("probabilities of %s: no table nat", chain)
	}
	c := t.Chain(chain)
	if c == nil {
		return nil, fmt.Errorf("probabilities of %s: no such chain in table nat", chain)
	}
	var out []Branch
	left, unknown := 1.0, false
	for _, r := range c.Rules {
		if t.onlyMarks(r.Target, 0) {
			continue
		}
		b := Branch{Rule: r, Target: r.Target.Name}
		share, affinity, known := r.chance()
		switch {
		case unknown || !known:
			unknown, b.Unknown = true, true
		case affinity:
			b.Affinity = true
		default:
			b.Probability = left * share
			left -= b.Probability
		}
		out = append(out, b)
	}
	return out, nil
}

// chance is the share of arriving new connections that the rule matches.
func (r Rule) chance() (share float64, affinity, known bool) {
	if len(r.Header) > 0 {
		return 0, false, false
	}
	share = 1
	for _, m := range r.Matches {
		switch {
		case !m.Known:
			return 0, false, false
		case m.Name == "comment":
		case m.Name == "recent":
			if o, check := m.Option("--rcheck"); !check || o.Not {
				return 0, false, false
			}
			affinity = true
		case m.Name == "statistic":
			o, ok := m.Option("--probability")
			p, err := strconv.ParseFloat(o.Value(), 64)
			if !ok || err != nil || o.Not {
				return 0, false, false
			}
			share *= p
		default:
			return 0, false, false
		}
	}
	return share, affinity, true
}

// maxDepth bounds the search through jumps; the kernel refuses loops.
const maxDepth = 16

// onlyMarks: a packet always comes back from the target, wherever it goes.
func (t *Table) onlyMarks(to Target, depth int) bool {
	if to.Name == "" || to.Name == "MARK" {
		return true
	}
	c := t.Chain(to.Name)
	if !to.Chain || c == nil || depth > maxDepth {
		return false
	}
	for _, r := range c.Rules {
		if !t.onlyMarks(r.Target, depth+1) {
			return false
		}
	}
	return true
}
