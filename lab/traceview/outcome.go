package traceview

import (
	"fmt"
	"strings"

	"slipway/datapath"
	"slipway/datapath/trace"
)

// outcome says in a few words what became of the packet at a step.
func outcome(s step) []span {
	switch s.Action {
	case trace.Drop:
		return withReason("DROPPED", bad, s)
	case trace.Reject:
		return withReason("REJECTED", bad, s)
	case trace.UnknownAction:
		return withReason("UNKNOWN", warn, s)
	case trace.DeliverAction:
		return []span{{delivered(s), good}}
	case trace.EncapAction:
		return []span{{"into " + outerLine(s.Packet.Outer), tunnel}}
	case trace.DecapAction:
		return []span{{"out of " + carrier(s) + ":", tunnel}, {source(s.Packet) + " → " + destination(s.Packet), normal}}
	}
	if nat := natWords(s); nat != nil {
		return nat
	}
	switch {
	case s.Stage == trace.Route && s.Route != "":
		return append([]span{{s.Route, verbatim}}, ttlWords(s)...)
	case s.Action == trace.Mark:
		return []span{{"mark " + first(hex(s.Packet.Mark), "0x0"), rewrite}}
	case s.Action == "":
		return []span{{"unknown", warn}}
	}
	return append([]span{{passed(s), normal}}, ttlWords(s)...)
}

// passed says how a packet got past a step that changes nothing.
func passed(s step) string {
	switch {
	case strings.HasSuffix(s.Rule, "-j ACCEPT") || s.Rule == "policy ACCEPT":
		return "accepted"
	case s.Device != "" && s.Rule == "":
		return string(s.Action) + ", " + s.Device
	}
	return string(s.Action)
}

func withReason(word string, st style, s step) []span {
	out := []span{{word, st}}
	if s.Reason != "" && (s.Rule == "" || !strings.Contains(s.Reason, s.Rule)) { // the rule stands below
		out = append(out, span{strings.TrimPrefix(s.Reason, placeOf(s.Hop)+": "), normal})
	}
	return out
}

func delivered(s step) string {
	if s.Reason != "" {
		return s.Reason
	}
	return "to " + destination(s.Packet)
}

// carrier is the tunnel that a step took the packet out of.
func carrier(s step) string {
	if s.before == nil || s.before.Outer == nil {
		return orUnknown("")
	}
	return orUnknown(s.before.Outer.Type)
}

// natNames are what the nat table does, and what its undoing is called: the
// answer to a packet whose destination was changed has its source changed back.
var natNames = map[trace.Action][2]string{
	trace.DNAT: {"DNAT", "SNAT undone:"}, trace.SNAT: {"SNAT", "DNAT undone:"}, trace.Masquerade: {"masquerade", "DNAT undone:"},
}

// undone reports whether a step's rewriting is connection tracking at work, on
// an answer: no rule is asked.
func undone(s step) bool { return s.Rule == "" && strings.Contains(s.Conntrack, "reply") }

// natWords say which address became which; nil if none did.
func natWords(s step) []span {
	var out []span
	action := s.Action
	if b := s.before; b != nil {
		if from, to := source(*b), source(s.Packet); from != to {
			out = append(out, span{"source " + from + " → " + to, rewrite})
			if natNames[action][0] == "" {
				action = trace.SNAT
			}
		}
		if from, to := destination(*b), destination(s.Packet); from != to {
			out = append(out, span{"destination " + from + " → " + to, rewrite})
			if natNames[action][0] == "" {
				action = trace.DNAT
			}
		}
	}
	name := natNames[action][0]
	switch {
	case name == "":
		return nil
	case undone(s):
		name = natNames[action][1]
	case natNames[s.Action][0] == "":
		name = "conntrack:" // without an action of its own it follows the connection
	}
	if len(out) == 0 {
		out = []span{{natTarget(s.Action, s.Packet), rewrite}}
	} else if len(out) == 1 && name != "conntrack:" {
		_, out[0].text, _ = strings.Cut(out[0].text, " ") // the name says which of the two
	}
	return append([]span{{name, rewrite}}, out...)
}

func natTarget(a trace.Action, p datapath.Packet) string {
	if a == trace.DNAT {
		return "→ " + destination(p)
	}
	return "→ " + source(p)
}

func ttlWords(s step) []span {
	if s.before == nil || s.before.TTL == s.Packet.TTL || s.Packet.TTL == 0 {
		return nil
	}
	return []span{{fmt.Sprintf("ttl %d → %d", s.before.TTL, s.Packet.TTL), faint}}
}
