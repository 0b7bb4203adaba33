package trace

import (
	"fmt"
	"strings"

	"slipway/datapath/netfilter"
)

// hookPoint is where a packet is shown to netfilter.
type hookPoint struct {
	stage   Stage
	in, out string
	physOut string // bridge port, for a packet that stays in the bridge
	rt      *route // where it goes, in output, forward and postrouting
}

// device is the one that hops name: the input device where there is one.
func (a hookPoint) device() string {
	if a.stage == Output || a.stage == Postrouting {
		return a.out
	}
	return a.in
}

// passage collects what happens to a packet in one hook.
type passage struct {
	w      *walk
	pl     *place
	s      *skb
	at     hookPoint
	hop    Hop
	nat    *netfilter.NAT
	weight int // of the rule named in hop
	// changed: an address or port was rewritten.
	changed bool
}

// hook takes a packet through the tables of a netfilter hook and records the
// hop. It returns how the packet ended; nil if it goes on.
func (w *walk) hook(pl *place, s *skb, at hookPoint) *end {
	if pl.err != nil {
		e := w.lost(pl, s, at.stage, at.device())
		return &e
	}
	v := &passage{w: w, pl: pl, s: s, at: at, hop: Hop{Stage: at.stage, Device: at.device()}}
	tracks := at.stage == Prerouting || at.stage == Output
	before := s.p
	stops, translated := pl.stops(at.stage), false
	for _, stop := range stops {
		// Connection tracking comes after raw, before all other tables.
		if tracks && stop.AfterConntrack() {
			if flt := w.track(pl, s); flt != nil {
				return v.stop(flt)
			}
			tracks = false
		}
		var e *end
		if !stop.NAT {
			e = v.ask(stop)
		} else if !translated {
			e, translated = v.translation(stops), true
		}
		if e != nil {
			return e
		}
	}
	if s.ct != nil && (at.stage == Postrouting || at.stage == Input) {
		s.ct.confirmed = true // nf_confirm, the last of these hooks
	}
	v.hop.Conntrack = s.describe()
	v.hop.Action = v.action(before.Mark)
	v.hop.Reason = v.explain(before)
	w.hop(pl, s, v.hop)
	return nil
}

// translation takes the packet through what translates: the rules only where a
// connection has its translation still to be decided, until one decides.
func (v *passage) translation(stops []netfilter.Stop) *end {
	source := manip(v.at.stage)
	if v.s.ct == nil || v.s.ctState == "INVALID" || v.s.ctState == "UNTRACKED" {
		return nil
	}
	if v.s.ct.settled(source) || v.s.ctState == "RELATED" {
		v.changed = v.s.translate(source)
		return nil
	}
	for _, stop := range stops {
		if !stop.NAT || v.nat != nil {
			continue
		}
		if e := v.ask(stop); e != nil {
			return e
		}
	}
	v.s.ct.settle(source)
	v.changed = v.s.translate(source)
	return nil
}

// ask takes the packet through one table or base chain, if it is there.
func (v *passage) ask(stop netfilter.Stop) *end {
	if v.pl.rulesErr != nil && v.pl.hasRules() {
		return v.stop(unknownFault(stop.Owner(), "", "the rules cannot be read: %v", v.pl.rulesErr))
	}
	if v.pl.rules == nil || !v.pl.rules.Has(stop.Table) {
		return nil
	}
	return v.eval(stop)
}

// eval asks the rules of a table, and takes one of their outcomes.
func (v *passage) eval(stop netfilter.Stop) *end {
	table := stop.Owner()
	outcomes := v.w.eval(v.pl, v.query(stop.Table))
	o := outcomes[0]
	if len(outcomes) > 1 {
		weights := make([]float64, len(outcomes))
		for i := range outcomes {
			weights[i] = outcomes[i].Probability
		}
		o = outcomes[v.w.choose(weights)]
	}
	v.remember(o)
	switch o.Verdict {
	case netfilter.Accept:
	case netfilter.Drop:
		return v.stop(dropFault(stop, v.hop.Rule))
	case netfilter.Reject:
		return v.reject(table, o)
	default:
		return v.stop(unknownFault(table, o.Unknown, "the rule %q cannot be evaluated: %s", o.Unknown, o.Why))
	}
	v.s.p.Mark, v.s.p.TTL = o.Packet.Mark, o.Packet.TTL
	if o.NoTrack {
		v.s.ctState = "UNTRACKED"
	}
	if v.s.ct == nil {
		return nil
	}
	v.s.ct.mark = o.CTMark
	if o.NAT != nil {
		v.nat = o.NAT
		if flt := v.w.translation(v.pl, v.s, v.at, *o.NAT); flt != nil {
			return v.stop(flt)
		}
	}
	return nil
}

// remember notes what the packet matched. The rule that is named is the one
// that did most: stopped the packet, translated it, marked it, let it pass.
func (v *passage) remember(o netfilter.Outcome) {
	for _, h := range o.Hits {
		v.hop.Rules = append(v.hop.Rules, Hit(h))
		if strings.HasPrefix(h.Effect, "mark") {
			v.name(h, 2)
		}
	}
	if d := o.Deciding; d != nil {
		switch {
		case o.Verdict != netfilter.Accept:
			v.name(*d, 4)
		case o.NAT != nil:
			v.name(*d, 3)
		case d.Number > 0:
			v.name(*d, 1)
		}
	}
	for _, n := range o.Notes {
		v.w.notes[v.pl.label()+": "+n] = true
	}
}

func (v *passage) name(h netfilter.Hit, weight int) {
	if weight >= v.weight {
		v.hop.Rule, v.hop.Table, v.weight = h.Rule, h.Table, weight
	}
}

func (v *passage) query(table string) netfilter.Query {
	q := netfilter.Query{
		Hook: string(v.at.stage), Table: table, Packet: v.s.p, In: v.at.in, Out: v.at.out,
		State: v.s.ctState, Reply: v.s.ctReply, AddrType: v.pl.addrType, PhysOut: v.at.physOut,
	}
	if b := v.s.bridged; b != nil {
		q.Bridged, q.PhysIn = true, b.in
	}
	if c := v.s.ct; c != nil {
		q.DNATed, q.SNATed, q.Assured, q.Confirmed, q.CTMark = c.dnat, c.snat, c.assured, c.confirmed, c.mark
		q.OrigSrc, q.OrigDst, q.ReplySrc, q.ReplyDst = c.orig.src, c.orig.dst, c.reply.src, c.reply.dst
	}
	return q
}

func dropFault(stop netfilter.Stop, rule string) *fault {
	table, list := stop.Owner(), "iptables -t "+stop.Owner()+" -L -v -n --line-numbers"
	if stop.NFT {
		list = "nft list table " + table
	}
	text := fmt.Sprintf("the rule %q of table %s drops the packet", rule, table)
	if policy, ok := strings.CutPrefix(rule, "policy "); ok {
		text = fmt.Sprintf("no rule of table %s accepts the packet, and the chain's policy is %s", table, policy)
	}
	return &fault{reason: ReasonRuleDrop, table: table, rule: rule, text: text, hint: list}
}

func (v *passage) stop(flt *fault) *end {
	v.hop.Conntrack = v.s.describe()
	e := v.w.stop(v.pl, v.s, v.hop, flt)
	return &e
}
