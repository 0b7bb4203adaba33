package traceview

import (
	"fmt"
	"strings"
	"unicode"

	"slipway/datapath"
	"slipway/datapath/trace"
)

// stages says what each stage is, in the words of a lecture.
var stages = map[trace.Stage]string{
	trace.Socket:      "The packet begins here: the kernel builds it, for a process or on its own account.",
	trace.Egress:      "The packet leaves this network stack through a device.",
	trace.Ingress:     "A device receives the packet, and the kernel's receive path takes it up.",
	trace.Prerouting:  "Netfilter's PREROUTING hook comes before the routing decision. The tables raw, mangle and nat see every packet that arrives here; this is where a Service's address becomes a pod's (DNAT).",
	trace.Input:       "Netfilter's INPUT hook: the routing decision was that the packet is for this very machine, and the filter table may still refuse it.",
	trace.Forward:     "Netfilter's FORWARD hook: the packet is only passing through, and the filter table decides whether it may.",
	trace.Output:      "Netfilter's OUTPUT hook sees what this machine itself sends. The nat table can already change the destination here.",
	trace.Postrouting: "Netfilter's POSTROUTING hook is the last one before the device. This is where a source address is changed (masquerade, SNAT).",
	trace.Route:       "The kernel looks up the destination in its routing tables: the longest prefix wins, and says through which device and which next hop the packet goes.",
	trace.BridgeStage: "A bridge switches frames by MAC address: its forwarding database (FDB) says behind which port the destination is.",
	trace.Encap:       "A tunnel device puts the whole packet into another one, which the underlay can carry from node to node.",
	trace.Decap:       "The other end of the tunnel takes the packet out of the one that carried it, and it goes on as if it had just arrived.",
	trace.Wire:        "The underlay's switch: it knows nothing of pods, and forwards the frame by its MAC address.",
	trace.Userspace:   "The packet leaves the kernel: a process reads it from a TUN device, and sends it on as the payload of a datagram of its own.",
	trace.Deliver:     "The end of the way: a socket, or the kernel itself, takes the packet.",
}

// explain says in sentences what a step is and what it did.
func explain(s step) string {
	out := append([]string{lecture(s.Stage)}, happened(s)...)
	if s.mark == plain && s.obs == nil && s.pred != nil && s.pred.Hidden && s.Stage != trace.Socket {
		out = append(out, "No observer can see this step: it is read off the kernel's tables.")
	}
	return strings.Join(out, " ")
}

// lecture says what a stage is.
func lecture(s trace.Stage) string { return first(stages[s], "What this step is, is unknown.") }

// happened says in sentences what a step did, if anything.
func happened(s step) []string {
	var out []string
	if t := did(s); t != "" {
		out = append(out, t)
	}
	if s.chance > 0 {
		out = append(out, fmt.Sprintf("A rule of this hook tosses a coin (the statistic match): the packet comes out this way with a probability of %s.", percent(s.chance)))
	}
	switch {
	case s.mark == onlyPredicted:
		out = append(out, "The prediction has this step, but it was not observed.")
	case s.mark == onlyObserved:
		out = append(out, "This was observed, but the prediction does not have it.")
	}
	return out
}

// did says what the step did to the packet: in the trace's own words, if it has
// any, and what a student should know of it.
func did(s step) string {
	switch s.Action {
	case trace.Drop:
		return "The packet ends here, and nobody is told" + because(s.Reason)
	case trace.Reject:
		return "The packet ends here, and its sender is told" + because(s.Reason)
	case trace.UnknownAction:
		return "What happens here is unknown" + because(s.Reason)
	}
	return strings.TrimSpace(sentence(s.Reason) + " " + taught(s))
}

// taught is the general part of what a step did.
func taught(s step) string {
	switch {
	case natWords(s) != nil && undone(s):
		return "It is an answer: connection tracking puts back the address that the request was sent with or to, and no rule is asked."
	case s.Action == trace.DNAT:
		return fmt.Sprintf("The new destination is %s; connection tracking remembers the old one, so that the answers get it back.", destination(s.Packet))
	case s.Action == trace.SNAT || s.Action == trace.Masquerade:
		return fmt.Sprintf("The new source is %s: the answers will come back to this node, which puts the old one in again.", source(s.Packet))
	case s.Action == trace.Mark:
		return "A rule puts a mark on the packet. The mark is not in the packet: it stays in this kernel, for a later rule to look at."
	case s.Action == trace.EncapAction:
		return encapSentence(s.Packet)
	case s.Action == trace.DecapAction:
		return fmt.Sprintf("Inside is %s.", packetLine(s.Packet))
	case natWords(s) != nil:
		return "The packet belongs to a connection whose addresses were translated: connection tracking changes them by what it remembers, and no rule is asked."
	case s.Stage == trace.Forward && s.before != nil && s.Packet.TTL < s.before.TTL:
		return "Forwarding takes one from the TTL."
	}
	return ""
}

// sentence begins with a capital, unless with a name, and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.TrimSuffix(s, ".") + "."
	if word, _, _ := strings.Cut(s, " "); strings.ContainsFunc(strings.TrimSuffix(word, "."), func(r rune) bool { return !unicode.IsLetter(r) }) {
		return s // a device's name keeps its case
	}
	r := []rune(s)
	r[0] = unicode.ToUpper(r[0])
	return string(r)
}

func because(reason string) string {
	if reason == "" {
		return "."
	}
	return ": " + reason + "."
}

func encapSentence(p datapath.Packet) string {
	o := p.Outer
	if o == nil {
		return "The carrying packet is unknown."
	}
	return fmt.Sprintf("On the outside it is now a packet from %s to %s; the packet of before is its payload.", hostPort(addr(o.Src), o.SPort), hostPort(addr(o.Dst), o.DPort))
}

// fact is one line of what a step rests on.
type fact struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	Verbatim bool   `json:"verbatim,omitempty"`
}

// facts are what decided at a step, verbatim.
func facts(s step) []fact {
	var out []fact
	add := func(name, value string, verbatim bool) {
		if value != "" {
			out = append(out, fact{name, value, verbatim})
		}
	}
	if s.Rule != "" {
		add(ruleName(s.Table), s.Rule, true)
	}
	add("chains", chainPath(s.Hop), false)
	for _, h := range s.Rules {
		if h.Rule != s.Rule && h.Rule != "policy ACCEPT" {
			add(hitName(h), h.Rule+effect(h), true)
		}
	}
	add("route", s.Route, true)
	if s.Stage == trace.BridgeStage || s.Stage == trace.Encap {
		add("FDB", s.Neighbor, true)
	} else {
		add("neighbour", s.Neighbor, true)
	}
	add("conntrack", s.Conntrack, false)
	if s.MTU > 0 {
		add("MTU", fmt.Sprintf("%d bytes", s.MTU), false)
	}
	if s.obs != nil && s.obs.TookNs > 0 {
		add("took", micros(s.obs.TookNs)+" µs inside this step", false)
	}
	if s.obs != nil {
		add("seen by", strings.Join(s.obs.Evidence, ", "), false)
	}
	return out
}

// ruleName is what the deciding entry of a table is called.
func ruleName(table string) string {
	switch table {
	case "raw", "mangle", "nat", "filter", "security":
		return table + " rule"
	case "neighbor":
		return "neighbour"
	case "fdb":
		return "FDB entry"
	case "":
		return "rule"
	case "sysctl", "link", "tunnel", "bgp", "socket", "conntrack":
		return table
	}
	return table + " table"
}

func hitName(h trace.Hit) string {
	if h.Number > 0 {
		return fmt.Sprintf("%s #%d", h.Table, h.Number)
	}
	return h.Table
}

func effect(h trace.Hit) string {
	s := ""
	if to := strings.TrimPrefix(h.Effect, "jump "); h.Effect != "" && !strings.HasSuffix(h.Rule, "-j "+to) {
		s = "  ⇒ " + h.Effect
	}
	if h.Probability > 0 {
		s += fmt.Sprintf(" (probability %s)", percent(h.Probability))
	}
	return s
}

// chainPath is the chains of its table that a packet went through to the
// deciding rule; empty if that was the first one.
func chainPath(h trace.Hop) string {
	var out []string
	for _, hit := range h.Rules {
		if hit.Table == h.Table && (len(out) == 0 || out[len(out)-1] != hit.Chain) {
			out = append(out, hit.Chain)
		}
		if hit.Rule == h.Rule {
			break
		}
	}
	if h.Rule == "" || len(out) < 2 {
		return ""
	}
	return strings.Join(out, " → ")
}
