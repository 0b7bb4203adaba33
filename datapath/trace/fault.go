package trace

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// fault is why a packet goes no further.
type fault struct {
	unknown bool // nobody knows whether it does
	told    bool // the sender's own kernel tells it, by an error of its system call
	reason  Reason
	table   string
	rule    string // verbatim
	text    string
	hint    string
	icmp    *icmpError // what a router tells the sender
	reset   bool       // the sender is told by a TCP reset
	device  string     // that is to blame, if it is not the hop's
}

// icmpError is an ICMP error about a packet (RFC 792).
type icmpError struct {
	typ, code uint8
	mtu       int
}

// ICMP types and codes (linux include/uapi/linux/icmp.h).
const (
	icmpEchoReply   = 0
	icmpUnreachable = 3
	icmpEcho        = 8
	icmpTimeExceed  = 11

	codeNetUnreachable   = 0
	codeHostUnreachable  = 1
	codeProtoUnreachable = 2
	codePortUnreachable  = 3
	codeFragNeeded       = 4
	codePacketFiltered   = 13
)

func unreachable(code uint8) *icmpError { return &icmpError{typ: icmpUnreachable, code: code} }

func unknownFault(table, rule, format string, args ...any) *fault {
	return &fault{unknown: true, reason: ReasonNotEvaluated, table: table, rule: rule, text: fmt.Sprintf(format, args...)}
}

// typeFault is what a route of another type than unicast and local does
// (net/ipv4/fib_semantics.c, fib_props).
func typeFault(r *datapath.FIBRoute) *fault {
	f := fault{table: tableName(r.Table), rule: fibResult{route: r}.text()}
	switch r.Type {
	case "blackhole":
		f.reason = ReasonBlackhole
		f.text = fmt.Sprintf("the route %q throws packets away without a word", f.rule)
		f.hint = "a more specific route is missing"
		if r.Protocol == datapath.ProtoBird {
			f.hint = "the address is in this node's own block, but no pod here has it"
		}
	case "unreachable":
		f.reason, f.icmp = ReasonUnreachable, unreachable(codeHostUnreachable)
		f.text = fmt.Sprintf("the route %q rejects packets as unreachable", f.rule)
	case "prohibit":
		f.reason, f.icmp = ReasonProhibit, unreachable(codePacketFiltered)
		f.text = fmt.Sprintf("the route %q prohibits the way", f.rule)
	default:
		return nil
	}
	return &f
}

// policyFault is a policy rule that rejects (net/ipv4/fib_rules.c, fib4_rule_action).
func policyFault(r *datapath.PolicyRule, dst netip.Addr) *fault {
	f := fault{table: "rule", rule: r.Text, text: fmt.Sprintf("the policy rule %q rejects packets to %s", r.Text, dst)}
	switch r.Action {
	case "unreachable":
		f.reason, f.icmp = ReasonUnreachable, unreachable(codeNetUnreachable)
	case "prohibit":
		f.reason, f.icmp = ReasonProhibit, unreachable(codePacketFiltered)
	case "blackhole":
		f.reason = ReasonBlackhole
	default:
		return unknownFault("rule", r.Text, "the policy rule %q cannot be evaluated", r.Text)
	}
	return &f
}

func noRoute(f *fib, q flow) *fault {
	out := &fault{
		reason: ReasonNoRoute, table: tableName(tableMain), icmp: unreachable(codeNetUnreachable),
		text: fmt.Sprintf("no route to %s in any routing table", q.dst),
		hint: "ip route get " + q.dst.String(),
	}
	if t := f.tables[tableMain]; t != nil {
		for _, rs := range t.routes {
			for _, r := range rs {
				if r.Protocol == datapath.ProtoBird {
					out.hint = "routes to pods are learnt by BGP here: is the session with the pod's node up?"
				}
			}
		}
	}
	return out
}
