package netfilter

import (
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
)

// Eval is [Rules.Eval] of a rule set that is asked only once.
func Eval(rs *kubeproxy.Ruleset, q Query) []Outcome { return Compile(rs).Eval(q) }

// The kernel refuses rule sets with loops; a text may have one. And chance
// multiplies: what comes after so many outcomes is unknown.
const (
	maxSteps    = 1 << 22 // rules looked at in one query
	maxHits     = 1 << 16 // rules hit on one way
	maxOutcomes = 1 << 14
)

// Eval says what can become of the packet: at least one outcome. A table or
// chain that is not there accepts. Table nat accepts without looking at a rule
// what is not a connection's first packet, and errors about other packets
// (linux net/netfilter/nf_nat_core.c, nf_nat_inet_fn).
func (r *Rules) Eval(q Query) []Outcome {
	e := evaluation{q: &q, table: r.tables[q.Table]}
	w := &way{e: &e, packet: q.Packet, ctmark: q.CTMark, left: 1}
	of := r.bases[q.Table]
	if of == nil && !slices.Contains(Order(q.Hook), q.Table) {
		w.giveUp(q.Hook+" "+q.Table, "there is no such table at this hook")
		return e.out
	}
	var err error
	if w.view, err = newView(q.Packet); err != nil {
		w.giveUp(q.Packet.String(), err.Error())
		return e.out
	}
	e.state = q.stateHere(q.Table == "raw" || of != nil && !of.stop.AfterConntrack())
	nat := q.Table == "nat"
	switch {
	case of != nil:
		e.table, e.base, nat = of.table, of.chain, of.stop.NAT
	case e.table != nil:
		e.base = e.table.chains[strings.ToUpper(q.Hook)]
	}
	if e.base == nil || nat && !e.asksNAT(w) {
		w.end(Outcome{Verdict: Accept})
		return e.out
	}
	w.chain = e.base
	w.run()
	return e.out
}

// stateHere is what the connection's state looks like in the table: early, before
// connection tracking there is none, which looks like INVALID (linux
// net/netfilter/xt_conntrack.c, conntrack_mt), unless the packet has come over
// the loopback, where it keeps what it had.
func (q *Query) stateHere(early bool) string {
	if early && q.In != "lo" {
		return "INVALID"
	}
	return q.State
}

// tracked says that there is a connection to ask.
func (e *evaluation) tracked() bool { return e.state != "INVALID" && e.state != "UNTRACKED" }

func (e *evaluation) asksNAT(w *way) bool {
	switch e.state {
	case "NEW", "":
		return true
	case "RELATED":
		return w.view.proto != protoICMP
	default:
		return false
	}
}

// evaluation is one query on its way.
type evaluation struct {
	q     *Query
	table *table
	base  *chain
	state string
	steps int
	out   []Outcome
}

// way is one of the ways that a packet can take through the table.
type way struct {
	e      *evaluation
	view   view
	packet datapath.Packet
	ctmark uint32
	left   float64 // probability of this way

	chain *chain
	at    int // the next rule
	stack []frame

	hits       []Hit
	noTrack    bool
	remembered []Remembered
	notes      []string
}

// frame is where a jump came from.
type frame struct {
	chain *chain
	at    int
}

// fork is a second way that goes on from here on its own.
func (w *way) fork() *way {
	f := *w
	f.stack = slices.Clone(w.stack)
	f.hits = slices.Clone(w.hits)
	f.remembered = slices.Clone(w.remembered)
	f.notes = slices.Clone(w.notes)
	return &f
}

// run goes on until the way ends.
func (w *way) run() {
	for {
		rules := w.chain.rules()
		if w.at >= len(rules) {
			if w.back() {
				return
			}
			continue
		}
		r, n := &rules[w.at], w.at+1
		w.at = n
		if w.e.steps++; w.e.steps > maxSteps || len(w.hits) > maxHits || len(w.e.out) >= maxOutcomes {
			w.giveUp(r.raw, "there are too many ways through the rules")
			return
		}
		if !r.head.match(&w.view, w.e.q.In, w.e.q.Out) {
			continue
		}
		b := r.body(w.e.table)
		a := w.matches(b)
		switch {
		case a.is == no:
		case a.is == unknown && b.target.harmless():
			w.note("whether a rule without effect matches is not known: " + r.raw)
		case a.is == unknown:
			w.giveUpAt(r, n, a.why)
			return
		case a.is == maybe:
			w.branch(r, b, n, a)
		default:
			if w.hit(r, b, n, 0) {
				return
			}
		}
	}
}

// branch sends a second way through the rule; this one goes past it.
func (w *way) branch(r *rule, b *body, n int, a answer) {
	in := w.fork()
	in.left *= a.chance
	w.left *= 1 - a.chance
	if a.note != "" {
		in.note(a.note)
		w.note(a.note)
	}
	in.remembered = append(in.remembered, a.remember...)
	if !in.hit(r, b, n, a.chance) {
		in.run()
	}
}

// back returns to where the last jump came from, or at the end to the policy.
func (w *way) back() (done bool) {
	if len(w.stack) == 0 {
		v := Drop
		if w.e.base.policy == "ACCEPT" {
			v = Accept
		}
		w.hits = append(w.hits, Hit{Table: w.e.table.name, Chain: w.e.base.name, Rule: "policy " + w.e.base.policy, Effect: v.String()})
		w.decide(Outcome{Verdict: v})
		return true
	}
	f := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	w.chain, w.at = f.chain, f.at
	return false
}

// hit does what the rule says.
func (w *way) hit(r *rule, b *body, n int, chance float64) (done bool) {
	if b.target.pick != nil {
		return w.pick(r, &b.target, n)
	}
	return w.do(r, &b.target, n, chance)
}

func (w *way) do(r *rule, t *target, n int, chance float64) (done bool) {
	h := Hit{Table: w.e.table.name, Chain: w.chain.name, Number: n, Rule: r.raw, Effect: t.effect, Probability: chance}
	if t.change != nil {
		h.Effect = t.change(w)
	}
	out := t.outcome
	if t.nat != nil {
		var err error
		if out.NAT, err = t.nat(w); err != nil {
			w.giveUpAt(r, n, err.Error())
			return true
		}
		h.Effect = out.NAT.String()
	}
	w.hits = append(w.hits, h)
	switch t.kind {
	case decides:
		w.decide(out)
		return true
	case jumps:
		w.stack = append(w.stack, frame{w.chain, w.at})
		w.chain, w.at = t.chain, 0
	case goes:
		w.chain, w.at = t.chain, 0
	case returns:
		return w.back()
	case baffles:
		w.hits = w.hits[:len(w.hits)-1]
		w.giveUpAt(r, n, t.why)
		return true
	}
	return false
}

// giveUpAt ends the way at a rule that is not understood.
func (w *way) giveUpAt(r *rule, n int, why string) {
	w.hits = append(w.hits, Hit{Table: w.e.table.name, Chain: w.chain.name, Number: n, Rule: r.raw, Effect: "unknown: " + why})
	w.decide(Outcome{Unknown: r.raw, Why: why})
}

func (w *way) giveUp(what, why string) { w.end(Outcome{Unknown: what, Why: why}) }

// decide ends the way at its last hit.
func (w *way) decide(o Outcome) {
	h := w.hits[len(w.hits)-1]
	o.Deciding = &h
	w.end(o)
}

func (w *way) end(o Outcome) {
	o.Probability, o.Packet, o.CTMark, o.NoTrack = w.left, w.packet, w.ctmark, w.noTrack
	o.Hits, o.Remembered, o.Notes = w.hits, w.remembered, w.notes
	w.e.out = append(w.e.out, o)
}

func (w *way) note(s string) {
	if !slices.Contains(w.notes, s) {
		w.notes = append(w.notes, s)
	}
}
