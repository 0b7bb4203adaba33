package trace

import "slices"

// ends compares how it ended, and why. A prediction that is unknown contradicts
// nothing.
func (m *matcher) ends() {
	b, o := m.branch, m.seen
	if b.Verdict == Unknown || (b.Verdict == o.Verdict && b.Verdict == Delivered) {
		return
	}
	reply := b.Cause != nil && b.Cause.Reply
	p, s := m.last(b.Hops, b.Reply, reply), m.last(o.Request, o.Reply, o.Cause != nil && o.Cause.Reply)
	if o.Verdict == Unknown {
		// Nothing says why it was not seen any more. Where the prediction ends
		// at the same point, that is agreement.
		if (b.Verdict == Delivered || m.parted) && o.Lost == 0 {
			m.add(reply, p, s, "verdict", "the prediction is %s, the packet was not: %s", b.Verdict, o.Cause.words())
		}
		return
	}
	if b.Verdict != o.Verdict && !m.waits() && !m.withheld() {
		m.add(reply, p, s, "verdict", "the prediction is %s%s, the packet was %s%s", b.Verdict, b.Cause.because(), o.Verdict, o.Cause.because())
		return
	}
	m.cause(p, s)
}

// waits reports whether the verdict depends on how long one listens: of a
// neighbour that does not answer, the kernel tells the sender after seconds.
func (m *matcher) waits() bool {
	return m.branch.Verdict != Delivered && m.seen.Verdict != Delivered &&
		m.branch.Cause != nil && m.branch.Cause.Reason == ReasonNoNeighbor
}

// withheld reports whether the sender was only not told.
func (m *matcher) withheld() bool { return Withheld(m.branch, m.seen) }

// last is the index of the hop at which a direction ends.
func (m *matcher) last(request, reply []Hop, ofReply bool) int {
	if ofReply {
		return len(reply) - 1
	}
	return len(request) - 1
}

// cause compares why a packet was lost.
func (m *matcher) cause(p, s int) {
	a, b := m.branch.Cause, m.seen.Cause
	if a == nil || b == nil || b.Reason == ReasonNotSeen {
		return
	}
	differs := func(name, predicted, observed string) bool {
		if predicted == "" || observed == "" || predicted == observed {
			return false
		}
		m.add(a.Reply, p, s, "cause", "the prediction is lost by %s %s, the packet by %s", name, predicted, observed)
		return true
	}
	switch {
	case !slices.Contains(m.seen.Observes, Prerouting):
		// Who sees devices only knows who refused, not what for.
		if m.seen.Verdict == Rejected {
			differs("namespace", a.Namespace, b.Namespace)
		}
	case a.Reply != b.Reply:
		m.add(a.Reply, p, s, "cause", "the prediction loses the %s, lost was the %s", direction(a.Reply), direction(b.Reply))
	case !a.Reason.like(b.Reason) && !m.withheld():
		m.add(a.Reply, p, s, "cause", "the prediction is lost by %s, the packet by %s%s", a.Reason, b.Reason, b.because())
	case a.Reason != b.Reason: // the kernel tells less, also about where
	case differs("namespace", a.Namespace, b.Namespace):
	case b.Stage != BridgeStage && differs("device", a.Device, b.Device): // events of a bridge name the port the frame came by
	case byRules(a.Table) && byRules(b.Table) && differs("table", a.Table, b.Table):
	case m.seen.Rules && ruled(a.Reason):
		differs("rule", a.Rule, b.Rule)
	}
}

func direction(reply bool) string {
	if reply {
		return "reply"
	}
	return "request"
}

// ruled reports whether a cause's rule is an iptables rule: routes and sysctls
// are known to the prediction only.
func ruled(r Reason) bool { return r == ReasonRuleDrop || r == ReasonRuleReject }

// byRules reports whether a table is one of iptables': events tell these apart,
// but not routing tables.
func byRules(table string) bool {
	return slices.Contains([]string{"raw", "mangle", "nat", "filter", "security"}, table)
}

// alike are reasons that the kernel's events do not tell apart.
var alike = [][]Reason{
	{ReasonNoVTEP, ReasonTunnelDown}, // nothing takes the outer packet
	{ReasonNoFDB, ReasonNoNeighbor},  // a VXLAN device that knows no remote
	// A switch that sends the frame only where nobody takes it.
	{ReasonNoFDB, ReasonPortDown, ReasonDeviceDown, ReasonOtherHost},
	{ReasonHairpinOff, ReasonPortDown},    // a bridge that will not send by the port
	{ReasonDeviceDown, ReasonLoss},        // a queue that drops
	{ReasonDeviceDown, ReasonTunnelDown},  // a TUN that nobody serves has no carrier
	{ReasonDeviceDown, ReasonNoRoute},     // routes over a dead device are dead as well
	{ReasonDeviceDown, ReasonPortDown},    // a port is disabled when its device goes down
	{ReasonConntrackFull, ReasonRuleDrop}, // netfilter says that it dropped, not which part of it
	{ReasonConntrackClash, ReasonRuleDrop},
	{ReasonBridgeNetfilter, ReasonRuleDrop},
	{ReasonNoLease, ReasonNoRoute},       // programs answer net unreachable, too
	{ReasonNoLease, ReasonLoss},          // and drop ICMP, as any tc program may
	{ReasonMartian, ReasonRPFilter},      // one check: fib_validate_source
	{ReasonNoSuchHost, ReasonNoNeighbor}, // nobody answers ARP
	{ReasonUnreachable, ReasonNoRoute},
	{ReasonBlackhole, ReasonUnreachable, ReasonProhibit, ReasonNoRoute}, // where the error is withheld
	// An answer that fits no socket of the sender's, whatever the reason.
	{ReasonWrongSource, ReasonNoMasquerade, ReasonNoListener},
	{ReasonDuplicate, ReasonNoListener}, // the wrong host answers
}

// like reports whether an observed reason can be what was predicted.
func (r Reason) like(observed Reason) bool {
	return r == observed || slices.ContainsFunc(alike, func(set []Reason) bool {
		return slices.Contains(set, r) && slices.Contains(set, observed)
	})
}

// because is the cause in words, after a dash; empty without one.
func (c *Cause) because() string {
	if c == nil || c.Text == "" {
		return ""
	}
	return " (" + c.Text + ")"
}

func (c *Cause) words() string {
	if c == nil || c.Text == "" {
		return "no event says why"
	}
	return c.Text
}
