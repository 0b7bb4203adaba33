package netfilter

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Matches that ask what the namespace knows of the packet.

func markMatch(o *options) match {
	v, not, _ := o.negatable("--mark")
	value, mask, _ := o.masked(v)
	return func(w *way) answer { return is((w.packet.Mark&mask == value) != not) }
}

// connmarkMatch is linux net/netfilter/xt_connmark.c: without a connection not
// even a negated rule matches.
func connmarkMatch(o *options) match {
	v, not, _ := o.negatable("--mark")
	value, mask, _ := o.masked(v)
	return func(w *way) answer {
		switch {
		case w.e.state == "":
			return dontKnow("the state of the connection is not known")
		case w.noTrack || !w.e.tracked():
			return answer{}
		}
		return is((w.ctmark&mask == value) != not)
	}
}

var stateNames = []string{"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"}

// states reads a list of states, or of what else may stand there.
func (o *options) states(s string, known []string) []string {
	list := strings.Split(s, ",")
	for _, x := range list {
		if !slices.Contains(known, x) {
			o.fail("state %q is not understood", x)
		}
	}
	return list
}

func stateMatch(o *options) match {
	s, not, _ := o.negatable("--state")
	want := o.states(s, stateNames[:5])
	return func(w *way) answer { return w.stateAnswer(want, not) }
}

// connState is the packet's state as rules see it.
func (w *way) connState() string {
	if w.noTrack {
		return "UNTRACKED"
	}
	return w.e.state
}

func (w *way) stateAnswer(want []string, not bool) answer {
	s := w.connState()
	if s == "" {
		return dontKnow("the state of the connection is not known")
	}
	ok := slices.Contains(want, s)
	if s != "INVALID" && s != "UNTRACKED" {
		ok = ok || w.e.q.SNATed && slices.Contains(want, "SNAT") || w.e.q.DNATed && slices.Contains(want, "DNAT")
	}
	return is(ok != not)
}

// conntrackMatch is linux net/netfilter/xt_conntrack.c, conntrack_mt.
func conntrackMatch(o *options) match {
	var tests []match
	stateAsked := false
	if s, not, ok := o.negatable("--ctstate"); ok {
		want := o.states(s, stateNames)
		stateAsked = true
		tests = append(tests, func(w *way) answer { return w.stateAnswer(want, not) })
	}
	untracked := len(tests) // from here on a connection is needed
	if s, ok := o.value("--ctdir"); ok {
		o.states(s, []string{"ORIGINAL", "REPLY"})
		tests = append(tests, func(w *way) answer { return is(w.e.q.Reply == (s == "REPLY")) })
	}
	if s, not, ok := o.negatable("--ctproto"); ok {
		n, known := protocolNumber(s)
		if !known {
			o.fail("protocol %q is not known", s)
		}
		tests = append(tests, func(w *way) answer {
			p, ok := w.connProto()
			if !ok {
				return dontKnow("what the ICMP error is about is not known")
			}
			return is((p == n) != not)
		})
	}
	if s, not, ok := o.negatable("--ctstatus"); ok {
		tests = append(tests, o.ctstatus(s, not))
	}
	tests = append(tests, o.tuples()...)
	return func(w *way) answer {
		if w.connState() == "" {
			return dontKnow("the state of the connection is not known")
		}
		tracked := w.e.tracked() && !w.noTrack
		out := answer{is: yes}
		for i, t := range tests {
			if i >= untracked && !tracked {
				break
			}
			switch a := t(w); a.is {
			case no:
				return a
			case unknown:
				out = a
			}
		}
		if !tracked && !stateAsked {
			return answer{}
		}
		return out
	}
}

// connProto is the connection's protocol: an ICMP error's is that of the packet
// which it is about.
func (w *way) connProto() (uint8, bool) {
	m := w.view.icmp
	switch {
	case w.view.proto != protoICMP || !m.IsError():
		return w.view.proto, true
	case m.Quoted == nil:
		return 0, false
	}
	return protocolNumber(m.Quoted.Proto)
}

// ctstatus asks conntrack's status bits.
func (o *options) ctstatus(s string, not bool) match {
	want := o.states(s, []string{"NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"})
	return func(w *way) answer {
		q := w.e.q
		related := q.State == "RELATED"
		aboutOther := related && w.view.icmp.IsError() // an error is judged by the connection that it is about
		has := map[string]bool{
			"SEEN_REPLY": q.SeenReply || q.State == "ESTABLISHED",
			"ASSURED":    q.Assured,
			"CONFIRMED":  q.Confirmed || aboutOther || q.State == "ESTABLISHED",
			"EXPECTED":   related && !aboutOther,
		}
		return is(slices.ContainsFunc(want, func(s string) bool { return has[s] }) != not)
	}
}

// tuples are the questions for the connection's addresses and ports.
func (o *options) tuples() []match {
	var tests []match
	for _, t := range []struct {
		name string
		of   func(q *Query) netip.AddrPort
	}{
		{"--ctorigsrc", func(q *Query) netip.AddrPort { return q.OrigSrc }},
		{"--ctorigdst", func(q *Query) netip.AddrPort { return q.OrigDst }},
		{"--ctreplsrc", func(q *Query) netip.AddrPort { return q.ReplySrc }},
		{"--ctrepldst", func(q *Query) netip.AddrPort { return q.ReplyDst }},
	} {
		ask := func(name string, ok func(a netip.AddrPort) bool) {
			tests = append(tests, func(w *way) answer {
				a := t.of(w.e.q)
				if !a.Addr().Is4() {
					return dontKnow("the connection's %s is not known", strings.TrimPrefix(name, "--ct"))
				}
				return is(ok(a))
			})
		}
		if s, not, ok := o.negatable(t.name); ok {
			p, err := parsePrefix(s)
			if p.not = not; err != nil {
				o.fail("%v", err)
			}
			ask(t.name, func(a netip.AddrPort) bool { return p.match(number(a.Addr())) })
		}
		if s, not, ok := o.negatable(t.name + "port"); ok {
			ports := o.spanOf(s, math.MaxUint16)
			ports.not = not
			ask(t.name+"port", func(a netip.AddrPort) bool { return ports.match(uint32(a.Port())) })
		}
	}
	return tests
}

// addrTypes are routing types (linux include/uapi/linux/rtnetlink.h, RTN_…) as
// iptables spells them.
var addrTypes = []string{"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"}

func (w *way) addrType(a uint32, dev string) (string, bool) {
	if w.e.q.AddrType == nil {
		return "", false
	}
	return w.e.q.AddrType(address(a), dev)
}

// addrtypeMatch is linux net/netfilter/xt_addrtype.c, addrtype_mt_v1.
func addrtypeMatch(o *options) match {
	in, out := o.plainFlag("--limit-iface-in"), o.plainFlag("--limit-iface-out")
	ask := func(name string, addr func(v *view) uint32) match {
		s, not, ok := o.negatable(name)
		if !ok {
			return always
		}
		want := o.states(s, addrTypes)
		return func(w *way) answer {
			dev := ""
			if in {
				dev = w.e.q.In
			} else if out {
				dev = w.e.q.Out
			}
			t, ok := w.addrType(addr(&w.view), dev)
			if !ok {
				return dontKnow("the routing type of %s is not known", address(addr(&w.view)))
			}
			return is(slices.Contains(want, t) != not)
		}
	}
	src, dst := ask("--src-type", func(v *view) uint32 { return v.src }), ask("--dst-type", func(v *view) uint32 { return v.dst })
	return func(w *way) answer {
		a, b := src(w), dst(w)
		if a.is == no || b.is == yes {
			return a
		}
		return b
	}
}

// recentMatch is linux net/netfilter/xt_recent.c, recent_mt.
func recentMatch(o *options) match {
	name, ok := o.value("--name")
	if !ok {
		name = "DEFAULT"
	}
	mask := uint32(math.MaxUint32)
	if s, ok := o.value("--mask"); ok {
		var err error
		if mask, err = parseMask(s); err != nil {
			o.fail("%v", err)
		}
	}
	o.plainFlag("--rsource")
	dest := o.plainFlag("--rdest")
	set, notSet := o.flag("--set")
	check, notCheck := o.flag("--rcheck")
	update, notUpdate := o.flag("--update")
	not := notSet || notCheck || notUpdate
	if !set && !check && !update {
		o.fail("neither --set nor --rcheck nor --update")
	}
	seconds, _ := o.number("--seconds")
	o.plainFlag("--reap") // forgets others, later
	hits := uint32(1)
	if n, ok := o.number("--hitcount"); ok && n > 0 {
		hits = n
	}
	return func(w *way) answer {
		m := Remembered{List: name, Address: address(w.view.src & mask)}
		if dest {
			m.Address = address(w.view.dst & mask)
		}
		if set {
			a := is(!not)
			a.remember = []Remembered{m}
			return a
		}
		a, old := w.recall(m, time.Duration(seconds)*time.Second, int(hits), not)
		if update && old && a.is == yes {
			a.remember = []Remembered{m}
		}
		return a
	}
}

// recall asks whether an address has been seen often enough; old says that it
// has been seen at all.
func (w *way) recall(m Remembered, within time.Duration, hits int, not bool) (a answer, old bool) {
	seen, known := 0, false
	if w.e.q.Recent != nil {
		seen, known = w.e.q.Recent(m.List, m.Address, within)
	}
	for _, r := range w.remembered {
		if r == m {
			seen++
		}
	}
	a = is((seen >= hits) != not)
	if !known && seen < hits {
		a.note = "which clients are remembered (xt_recent) is not known; " + m.Address.String() + " is taken for a new one"
	}
	return a, seen > 0
}

// physdevMatch is linux net/netfilter/xt_physdev.c, physdev_mt.
func physdevMatch(o *options) match {
	isIn, notIsIn := o.flag("--physdev-is-in")
	isOut, notIsOut := o.flag("--physdev-is-out")
	bridged, notBridged := o.flag("--physdev-is-bridged")
	inName, notIn, in := o.negatable("--physdev-in")
	outName, notOut, out := o.negatable("--physdev-out")
	inDev, outDev := newDevice(inName, false), newDevice(outName, false)
	return func(w *way) answer {
		q := w.e.q
		if !q.Bridged { // matches only what is denied
			return is(!(bridged && !notBridged || isIn && !notIsIn || isOut && !notIsOut || in && !notIn || out && !notOut))
		}
		switch {
		case bridged && (q.PhysOut != "") == notBridged,
			isIn && (q.PhysIn != "") == notIsIn,
			isOut && (q.PhysOut != "") == notIsOut,
			in && q.PhysIn != "" && inDev.match(q.PhysIn) == notIn,
			out && (q.PhysOut == "" || outDev.match(q.PhysOut) == notOut):
			return answer{}
		}
		return answer{is: yes}
	}
}

func setMatch(o *options) match {
	x, ok := o.find("--match-set", 2)
	if !ok {
		o.fail("no set")
		return always
	}
	return func(w *way) answer {
		if w.e.q.InSet == nil {
			return dontKnow("what is in set %s is not known", x.Values[0])
		}
		member, ok := w.e.q.InSet(x.Values[0], x.Values[1], w.packet)
		if !ok {
			return dontKnow("what is in set %s is not known", x.Values[0])
		}
		return is(member != x.Not)
	}
}
