package observe

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// decodedHit is a rule hit with what its packet says.
type decodedHit struct {
	ruletrace.Hit
	packet Decoded
}

func (w *World) decodeHits(hits []ruletrace.Hit) []decodedHit {
	out := make([]decodedHit, len(hits))
	for i, h := range hits {
		out[i] = decodedHit{h, Decode(LinkRaw, h.Data, w.Ports)}
	}
	slices.SortStableFunc(out, func(a, b decodedHit) int { return cmp.Compare(a.Order, b.Order) })
	return out
}

// netfilter says what each hook did to the packet, and by which rule.
func (r *reader) netfilter(w *way) {
	used := map[int]bool{}
	for i, p := range w.list {
		if p.first().Point != skbtrace.Hook || p.hop.Stage != p.first().stage() {
			continue // a tunnel's hop rests on hooks' events too
		}
		before := p.first().traced()
		if i > 0 && w.list[i-1].hop.Packet.Outer == nil == (before.Outer == nil) {
			// What changed before this hook's first event changed in it as well:
			// nothing between two stages rewrites addresses.
			before = w.list[i-1].hop.Packet
			before.Mark = p.first().Mark
		}
		p.hop.Rules = r.hitsOf(p, used)
		p.hop.Action = changed(before, p.hop.Packet)
		p.hop.Table = p.tableOfChange()
		p.decide()
	}
}

// changed names what a hook did: by what is different behind it.
func changed(before, after datapath.Packet) trace.Action {
	switch {
	case before.Destination() != after.Destination():
		return trace.DNAT
	case before.Source() != after.Source():
		return trace.SNAT
	case before.Mark != after.Mark:
		return trace.Mark
	}
	return trace.Pass
}

// tablesBehind lists the tables that a packet last seen at a priority of a hook
// may be in when it is seen changed, or not seen again. That something happened
// means that there are tables.
func tablesBehind(hook string, priority int) []string {
	return slices.DeleteFunc(skbtrace.Behind(hook, priority, true), func(t string) bool {
		return t == "defragmentation" || t == "security" // which labs do not have
	})
}

// only is the one element of a list; empty if there are none or several.
func only(list []string) string {
	if len(list) != 1 {
		return ""
	}
	return list[0]
}

// tableOfChange finds the table that made the change from the priorities
// between which it happened. Only nat rewrites addresses.
func (p *passage) tableOfChange() string {
	switch p.hop.Action {
	case trace.DNAT, trace.SNAT:
		return "nat"
	case trace.Mark:
		for i := 1; i < len(p.events); i++ {
			if p.events[i].Mark != p.events[i-1].Mark {
				return only(tablesBehind(p.first().Hook, p.events[i-1].Priority))
			}
		}
	}
	return ""
}

// hitsOf collects the rules that the packet came to in a hook. A hit belongs to
// one passage: a hook that is passed twice has its own hits each time. What
// iptables' legacy tables and nftables tell comes in two streams.
func (r *reader) hitsOf(p *passage, used map[int]bool) []trace.Hit {
	e := p.first()
	type placed struct {
		trace.Hit
		priority int
	}
	var found []placed
	began := false
	low, over := map[bool]int{false: math.MinInt, true: math.MinInt}, map[bool]bool{}
	for i := range r.hits {
		h := &r.hits[i]
		if used[i] || over[h.NFT] || h.Inode != e.Inode || h.Hook != e.Hook || h.In != e.In || h.Out != e.Out || !sameOnWay(h.packet, e.packet) {
			continue
		}
		at := priorityOf(h)
		if over[h.NFT] = at < low[h.NFT]; over[h.NFT] {
			continue // the tables begin again: the next passage
		}
		low[h.NFT] = at
		used[i], began = true, true
		if hit, ok := r.hit(h, e.place.Namespace); ok {
			found = append(found, placed{hit, at})
		}
	}
	if !began {
		return nil
	}
	slices.SortStableFunc(found, func(a, b placed) int { return a.priority - b.priority })
	var out []trace.Hit
	for _, f := range found {
		out = append(out, f.Hit)
	}
	return out
}

// tablePriorities are the legacy tables' places in a hook (enum
// nf_ip_hook_priorities, include/uapi/linux/netfilter_ipv4.h).
var tablePriorities = map[string]int{"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}

// priorityOf is a hit's place in its hook: nat comes before filter but where
// sources are rewritten.
func priorityOf(h *decodedHit) int {
	switch {
	case h.NFT:
		return h.Priority
	case h.Table == "nat" && (h.Hook == "input" || h.Hook == "postrouting"):
		return 100
	}
	return tablePriorities[h.Table]
}

// sameOnWay reports whether a hit's packet is the one of an event, in the same
// carrier; addresses may have been rewritten between the two.
func sameOnWay(a, b Decoded) bool {
	return a.Encap == b.Encap && samePacket(a.IP, b.IP)
}

// hit finds the text of a rule. A chain that ends without a rule has none.
func (r *reader) hit(h *decodedHit, namespace string) (trace.Hit, bool) {
	if r.w.Rule == nil {
		return trace.Hit{}, false
	}
	out := trace.Hit{Table: h.Table, Chain: h.Chain, Number: h.Number}
	if h.Kind == "policy" {
		out.Number = 0
	}
	out.Rule = r.w.Rule(namespace, h.Table, h.Chain, out.Number)
	if out.Rule == "" {
		return out, false
	}
	if out.Effect = effect(out.Rule); h.NFT && h.Kind != "policy" && !strings.HasPrefix(out.Rule, "-A ") {
		out.Effect = nftEffect(out.Rule, h.Verdict)
	}
	return out, true
}

// target is what a rule in iptables-save's form jumps to, upper case for
// built-in targets; "" for a rule without one.
func target(rule string) (target, rest string) {
	if policy, ok := strings.CutPrefix(rule, "policy "); ok {
		return policy, ""
	}
	fields := strings.Fields(rule)
	for i, f := range fields {
		if (f == "-j" || f == "-g") && i+1 < len(fields) {
			return fields[i+1], strings.Join(fields[i+2:], " ")
		}
	}
	return "", ""
}

// effect says what a rule does, for people.
func effect(rule string) string {
	t, rest := target(rule)
	switch t {
	case "":
		return "counted"
	case "ACCEPT", "DROP", "RETURN", "MASQUERADE":
		return strings.ToLower(t)
	case "DNAT", "SNAT", "REJECT", "MARK":
		fields := strings.Fields(rest)
		if len(fields) > 1 {
			return strings.ToLower(t) + " " + fields[1]
		}
		return strings.ToLower(t)
	}
	return "jump " + t
}

// decides are the targets that bring about an action.
var decides = map[trace.Action][]string{
	trace.DNAT: {"DNAT", "REDIRECT"}, trace.SNAT: {"SNAT", "MASQUERADE", "NETMAP"}, trace.Mark: {"MARK", "CONNMARK"},
	trace.Drop: {"DROP"}, trace.Reject: {"REJECT"}, trace.Pass: {"ACCEPT"},
}

// decide finds the rule that brought about the hop's action. What is put back
// in an answer was decided by the connection's first packet.
func (p *passage) decide() {
	for i := len(p.hop.Rules) - 1; i >= 0; i-- {
		h := p.hop.Rules[i]
		t := targetOf(h)
		if !slices.Contains(decides[p.hop.Action], t) {
			continue
		}
		if p.hop.Action == trace.Pass && strings.HasPrefix(h.Rule, "policy ") {
			continue // that nothing objected is no decision
		}
		p.hop.Rule, p.hop.Table = h.Rule, h.Table
		if t == "MASQUERADE" {
			p.hop.Action = trace.Masquerade
		}
		return
	}
}
