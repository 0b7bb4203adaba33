package trace

import (
	"slices"
	"strings"
)

// A host limits how many ICMP errors it sends to one address (RFC 1812 §4.3.2.8;
// net.ipv4.icmp_ratelimit, net/ipv4/icmp.c, icmpv4_xrlim_allow).
const (
	mayBeWithheld = "a kernel sends one address at most one ICMP error a second, and six at once: this one may be missing"
	wasWithheld   = "the sender was not told: a kernel sends one address at most one ICMP error a second, and six at once (sysctl net.ipv4.icmp_ratelimit), and this address had its share"
)

// Withheld reports whether a packet met the very refusal that a branch predicts,
// and only the ICMP error that tells the sender is missing. An error that was
// sent and lost would have been seen.
func Withheld(b *Branch, o *Observation) bool {
	return b.Verdict == Rejected && o.Verdict == Dropped && len(o.Reply) == 0 && o.Lost == 0 &&
		len(b.Reply) > 0 && b.Reply[0].Packet.ICMP.IsError() &&
		b.Cause != nil && o.Cause != nil && !o.Cause.Reply &&
		(b.Cause.Reason.like(o.Cause.Reason) || b.Cause.sameRule(o.Cause))
}

// sameRule reports whether a packet was dropped by what is known to be a REJECT
// rule: without its answer, the kernel's events tell it from DROP only by the rule.
func (c *Cause) sameRule(seen *Cause) bool {
	same := func(predicted, observed string) bool {
		return predicted == "" || observed == "" || predicted == observed
	}
	return c.Reason == ReasonRuleReject && seen.Reason == ReasonRuleDrop && c.Namespace == seen.Namespace &&
		same(c.Table, seen.Table) && same(c.Rule, seen.Rule)
}

// TellWithheld makes an observation that is Withheld say what the packet met,
// with a note about the error. It returns the prediction's notes that still hold.
func TellWithheld(b *Branch, o *Observation, notes []string) []string {
	o.Verdict = Rejected
	cause := *o.Cause
	cause.Reason = b.Cause.Reason
	if cause.Reason == ReasonRuleReject {
		cause.Text = strings.Replace(cause.Text, ": dropped ", ": rejected ", 1)
	}
	if n := len(o.Request); n > 0 && o.Request[n-1].Action == Drop {
		o.Request[n-1].Action, o.Request[n-1].Reason = Reject, cause.Text
	}
	o.Cause = &cause
	o.Notes = append(o.Notes, wasWithheld)
	return slices.DeleteFunc(slices.Clone(notes), func(s string) bool { return s == mayBeWithheld })
}
