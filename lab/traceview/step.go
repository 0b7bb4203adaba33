package traceview

import (
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/trace"
)

// mark says what prediction and observation say of one step.
type mark int

const (
	plain         mark = iota // nothing to compare, or a lookup that nobody can see
	both                      // predicted and observed alike
	onlyPredicted             // not observed, although the observer would have seen it
	onlyObserved              // not predicted
	differs                   // both were there, and something is not the same
)

var markSigns = [...]string{plain: " ", both: "✓", onlyPredicted: "P", onlyObserved: "O", differs: "≠"}

func (m mark) String() string { return markSigns[m] }

// step is one hop with its predicted and observed side together.
type step struct {
	trace.Hop // what is shown: the observed side, and what only the predicted one knows
	pred, obs *trace.Hop
	mark      mark
	notes     []string // what differs, in words
	before    *datapath.Packet
	// ghost: a lookup on a way that the packet was not seen to take.
	ghost  bool
	chance float64 // of coming to this step's outcome, where a rule tossed a coin; 0 elsewhere
}

// way is one direction of a trace.
type way struct {
	reply bool
	steps []step
	// compared: there are two sides to compare.
	compared bool
}

// ways are the request and, where anything is known of it, the reply.
func ways(t *trace.Trace) []way {
	out := []way{merge(t, false, t.Predicted, t.Observed)}
	if back := merge(t, true, t.Reply.Predicted, t.Reply.Observed); len(back.steps) > 0 {
		out = append(out, back)
	}
	return out
}

// compared reports whether a trace has two sides.
func compared(t *trace.Trace) bool {
	return t.ObservedVerdict != nil && len(t.Predicted)+len(t.Reply.Predicted) > 0
}

// merge lays the observed hops beside the predicted ones.
func merge(t *trace.Trace, reply bool, pred, obs []trace.Hop) way {
	w := way{reply: reply, compared: compared(t)}
	var differ []trace.Disagreement
	for _, d := range t.Disagreements {
		if d.Reply == reply {
			differ = append(differ, d)
		}
	}
	told := map[string]bool{}
	for _, p := range align(pred, obs, differ) {
		s := step{}
		if p.pred >= 0 {
			s.pred = &pred[p.pred]
		}
		if p.obs >= 0 {
			s.obs = &obs[p.obs]
		}
		for _, d := range differ {
			// Where ways part, the text belongs to a hop of each side.
			if (p.pred >= 0 && d.Predicted == p.pred || p.obs >= 0 && d.Observed == p.obs) && !told[d.Text] {
				s.notes = append(s.notes, d.Text)
				told[d.Text] = true
			}
		}
		s.Hop = union(s.pred, s.obs)
		s.mark = judge(t, w.compared, s)
		w.steps = append(w.steps, s)
	}
	chain(w.steps)
	haunt(w.steps)
	return w
}

// haunt finds the lookups that belong to hops which were only predicted.
func haunt(steps []step) {
	parted := false
	for i := range steps {
		switch steps[i].mark {
		case onlyPredicted, onlyObserved:
			parted = true
		case both, differs:
			parted = false
		}
		steps[i].ghost = parted && steps[i].mark == plain
	}
	// A reply that was not seen at all begins with lookups.
	for i := range steps {
		if steps[i].mark == both || steps[i].mark == differs || steps[i].mark == onlyObserved {
			break
		}
		if steps[i].mark == onlyPredicted {
			for j := range i {
				steps[j].ghost = true
			}
			break
		}
	}
}

// judge finds the mark of a step.
func judge(t *trace.Trace, compared bool, s step) mark {
	switch {
	case !compared:
		return plain
	case s.pred == nil:
		return onlyObserved
	case s.obs == nil && (s.pred.Hidden || len(t.Observes) > 0 && !slices.Contains(t.Observes, s.pred.Stage)):
		return plain
	case s.obs == nil:
		return onlyPredicted
	case len(s.notes) > 0:
		return differs
	}
	return both
}

// chain tells each step what the packet was before it, on the same side: what
// was seen of a packet is compared with what was seen of it before, and with
// what lookups between, which nobody sees, are predicted to have changed.
func chain(steps []step) {
	var pred *trace.Hop
	var seen *datapath.Packet
	for i := range steps {
		s := &steps[i]
		switch {
		case s.obs != nil && seen != nil:
			s.before = unknownPort(*seen, s.obs.Packet)
		case s.obs != nil && pred != nil:
			s.before = unknownPort(pred.Packet, s.obs.Packet)
		case pred != nil:
			s.before = &pred.Packet
		}
		if s.pred != nil {
			if pred != nil && s.pred.Probability > 0 && s.pred.Probability < pred.Probability {
				s.chance = s.pred.Probability / pred.Probability
			}
			if s.obs == nil && pred != nil && seen != nil {
				seen = carry(*seen, pred.Packet, s.pred.Packet)
			}
			pred = s.pred
		}
		if s.obs != nil {
			p := s.obs.Packet
			seen = &p
		}
	}
}

// carry makes a predicted step's changes on a packet that was seen before it.
func carry(seen, from, to datapath.Packet) *datapath.Packet {
	if (from.Outer == nil) != (to.Outer == nil) {
		seen.Outer = to.Outer
	}
	if from.Src != to.Src || from.SPort != to.SPort {
		seen.Src, seen.SPort = to.Src, to.SPort
	}
	if from.Dst != to.Dst || from.DPort != to.DPort {
		seen.Dst, seen.DPort = to.Dst, to.DPort
	}
	seen.TTL -= from.TTL - to.TTL
	if from.Mark != to.Mark {
		seen.Mark = to.Mark
	}
	return &seen
}

// unknownPort takes ports that the kernel chooses, of tunnels and masquerading,
// from where they were seen first: that they were not predicted is no change.
func unknownPort(before, after datapath.Packet) *datapath.Packet {
	if before.SPort == 0 && before.Src == after.Src {
		before.SPort = after.SPort
	}
	if before.DPort == 0 && before.Dst == after.Dst {
		before.DPort = after.DPort
	}
	if b, a := before.Outer, after.Outer; b != nil && a != nil && b.SPort == 0 {
		o := *b
		o.SPort = a.SPort
		before.Outer = &o
	}
	return &before
}

// start is the packet as a way begins.
func (d way) start() datapath.Packet {
	p := d.steps[0].Packet
	for _, s := range d.steps {
		if s.obs != nil {
			return *unknownPort(p, s.obs.Packet)
		}
	}
	return p
}

// union is the observed hop, with what only a prediction can know added where
// the two are about the same thing.
func union(pred, obs *trace.Hop) trace.Hop {
	if obs == nil {
		return *pred
	}
	h := *obs
	if pred == nil {
		return h
	}
	fill(&h.Place, pred.Place)
	fill(&h.Node, pred.Node)
	fill(&h.Route, pred.Route)
	fill(&h.Neighbor, pred.Neighbor)
	fill(&h.Conntrack, pred.Conntrack)
	if h.MTU == 0 {
		h.MTU = pred.MTU
	}
	h.Probability = pred.Probability
	if h.Action == pred.Action {
		fill(&h.Reason, pred.Reason)
		if h.Rule == "" {
			h.Rule, h.Table = pred.Rule, pred.Table
		}
	}
	if len(h.Rules) == 0 {
		h.Rules = pred.Rules
	}
	return h
}

func fill(s *string, with string) {
	if *s == "" {
		*s = with
	}
}

// pair is a predicted and an observed hop that stand beside each other; -1 is
// none.
type pair struct{ pred, obs int }

// align finds the order-preserving pairing of the two lists that has most in
// common (Needleman and Wunsch 1970, without a price for gaps).
func align(pred, obs []trace.Hop, differ []trace.Disagreement) []pair {
	best := make([][]int, len(pred)+1)
	for i := range best {
		best[i] = make([]int, len(obs)+1)
	}
	for i := len(pred) - 1; i >= 0; i-- {
		for j := len(obs) - 1; j >= 0; j-- {
			best[i][j] = max(best[i+1][j], best[i][j+1])
			if v := likeness(pred[i], obs[j], i, j, differ); v > 0 {
				best[i][j] = max(best[i][j], v+best[i+1][j+1])
			}
		}
	}
	var out []pair
	i, j := 0, 0
	for i < len(pred) || j < len(obs) {
		switch {
		case i < len(pred) && j < len(obs) && paired(pred, obs, i, j, differ, best):
			out = append(out, pair{i, j})
			i, j = i+1, j+1
		case j < len(obs) && (i == len(pred) || best[i][j] == best[i][j+1]):
			out = append(out, pair{-1, j}) // what is real comes first where the ways part
			j++
		default:
			out = append(out, pair{i, -1})
			i++
		}
	}
	return out
}

func paired(pred, obs []trace.Hop, i, j int, differ []trace.Disagreement, best [][]int) bool {
	v := likeness(pred[i], obs[j], i, j, differ)
	return v > 0 && best[i][j] == v+best[i+1][j+1]
}

// likeness is how much speaks for two hops being the same step; zero: they are
// not.
func likeness(p, o trace.Hop, i, j int, differ []trace.Disagreement) int {
	for _, d := range differ {
		if d.What != "path" && d.Predicted == i && d.Observed == j {
			return 8 // the comparison itself laid them beside each other
		}
	}
	if p.Namespace != o.Namespace || p.Device != o.Device || p.Stage != o.Stage {
		return 0
	}
	v := 4
	if (p.Packet.Outer == nil) == (o.Packet.Outer == nil) {
		v++
	}
	if p.Action == o.Action {
		v++
	}
	return v
}

// group is a stretch of a way inside one namespace.
type group struct {
	place string
	kind  placeKind
	node  string
	steps []step
}

// placeKind is what sort of place a namespace is, as far as a trace tells.
type placeKind string

const (
	aPod      placeKind = "pod"
	aNode     placeKind = "node"
	aSwitch   placeKind = "fabric"
	elsewhere placeKind = "other" // routers, clients outside of the cluster
)

// groups splits a way where the packet changes its place.
func groups(steps []step) []group {
	var out []group
	for _, s := range steps {
		if n := len(out); n == 0 || out[n-1].steps[0].Namespace != s.Namespace || out[n-1].place != placeOf(s.Hop) {
			out = append(out, group{place: placeOf(s.Hop), kind: kindOf(s.Hop), node: s.Node})
		}
		g := &out[len(out)-1]
		g.steps = append(g.steps, s)
		if kindOf(s.Hop) == aSwitch {
			g.kind = aSwitch
		}
	}
	return out
}

// placeOf is the name of a hop's place.
func placeOf(h trace.Hop) string {
	switch {
	case h.Place != "":
		return h.Place
	case h.Namespace != "":
		return h.Namespace
	case h.Node != "":
		return h.Node
	}
	return "unknown place"
}

func kindOf(h trace.Hop) placeKind {
	place := placeOf(h)
	switch {
	case h.Stage == trace.Wire || place == "fabric":
		return aSwitch
	case strings.Contains(place, "/"):
		return aPod
	case h.Node != "" && h.Node == place:
		return aNode
	}
	return elsewhere
}
