package nft

import (
	"strconv"
	"strings"
)

// Statement is one part of a rule: what it asks, or what it does. One field is set.
type Statement struct {
	Match   *Match
	Map     *Map     // chooses a verdict
	Mark    *Mark    // changes the packet's mark
	NAT     *NAT     // translates
	Update  *Update  // remembers in a set
	Verdict *Verdict // decides
	Reject  string   // "icmp-port-unreachable", "tcp-reset", as iptables spells them
	Idle    string   // counts or logs, which decides nothing
	Unknown string   // is not understood: the words from here on
}

// Field is what a rule asks of a packet: "ip daddr", "meta l4proto", "th dport",
// "ct state", "mark", "fib daddr type", ….
type Field struct {
	Name string
	// Mask is what a mark is masked with, all bits where the rule has no mask.
	Mask uint32
}

// Match compares fields, joined if there are several, with a set or values.
type Match struct {
	Fields []Field
	Not    bool
	Set    string   // name of a set, without "@"
	Values []string // without a set: any of them
}

// Map looks up a value by fields, or by chance.
type Map struct {
	Fields []Field
	Random int    // numgen random mod: fields are empty
	Name   string // of a map, without "@"
	Pairs  []Pair // without a name
}

// Pair is a key with its value.
type Pair struct{ Key, Value string }

// Mark is a change of the packet's mark.
type Mark struct {
	Op    string // set | or | xor | and
	Value uint32
}

// NAT is a translation.
type NAT struct {
	Kind  string // dnat | snat | masquerade | redirect
	To    string // "10.244.1.2:80", ":8080"; empty: as Map says, or the device's address
	Map   *Map   // its values are "10.244.1.2 . 80"
	Flags []string
}

// Update adds a field's value to a set.
type Update struct {
	Set   string
	Field Field
}

// Verdict is accept, drop, return, continue, or goto and jump with a target.
type Verdict struct{ Kind, Target string }

// fields are those that are understood, by their words.
var fields = map[string]bool{
	"ip saddr": true, "ip daddr": true, "ip protocol": true, "meta l4proto": true, "meta iifname": true, "meta oifname": true,
	"th sport": true, "th dport": true, "tcp sport": true, "tcp dport": true, "udp sport": true, "udp dport": true,
	"ct state": true, "ct status": true, "ct direction": true, "fib daddr type": true, "fib saddr type": true, "mark": true,
}

// Parse takes a rule apart, without its comment. The last statement is Unknown
// where something is not understood.
func Parse(text string) []Statement {
	p := &parser{words: strings.Fields(text)}
	var out []Statement
	for len(p.words) > 0 {
		rest := p.words
		s, ok := p.statement()
		if !ok {
			return append(out, Statement{Unknown: strings.Join(rest, " ")})
		}
		out = append(out, s)
	}
	return out
}

// ParseVerdict reads a verdict as elements of maps have it.
func ParseVerdict(s string) (Verdict, bool) {
	kind, target, _ := strings.Cut(s, " ")
	switch kind {
	case "accept", "drop", "return", "continue":
		return Verdict{Kind: kind}, target == ""
	case "jump", "goto":
		return Verdict{kind, target}, target != ""
	}
	return Verdict{}, false
}

type parser struct{ words []string }

func (p *parser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

// next takes a word; empty at the end.
func (p *parser) next() string {
	w := p.peek()
	if w != "" {
		p.words = p.words[1:]
	}
	return w
}

// take takes words if they come next.
func (p *parser) take(words ...string) bool {
	if len(p.words) < len(words) {
		return false
	}
	for i, w := range words {
		if p.words[i] != w {
			return false
		}
	}
	p.words = p.words[len(words):]
	return true
}

func (p *parser) statement() (Statement, bool) {
	switch w := p.peek(); w {
	case "accept", "drop", "return", "continue":
		p.next()
		return Statement{Verdict: &Verdict{Kind: w}}, true
	case "jump", "goto":
		p.next()
		to := p.next()
		return Statement{Verdict: &Verdict{w, to}}, to != ""
	case "counter":
		p.next()
		return Statement{Idle: "count"}, true
	case "reject":
		p.next()
		return p.reject()
	case "dnat", "snat", "masquerade", "redirect":
		p.next()
		n, ok := p.nat(w)
		return Statement{NAT: n}, ok
	case "update", "add":
		p.next()
		return p.update()
	case "numgen":
		m, ok := p.random()
		return Statement{Map: m}, ok && p.take("vmap") && p.data(m)
	default:
		return p.about()
	}
}

// rejections are nft's names of ICMP codes, as iptables spells them (nftables
// src/datatype.c, icmp_code_tbl).
var rejections = map[string]string{
	"net-unreachable": "icmp-net-unreachable", "host-unreachable": "icmp-host-unreachable", "port-unreachable": "icmp-port-unreachable",
	"prot-unreachable": "icmp-proto-unreachable", "net-prohibited": "icmp-net-prohibited", "host-prohibited": "icmp-host-prohibited",
	"admin-prohibited": "icmp-admin-prohibited",
}

func (p *parser) reject() (Statement, bool) {
	switch {
	case p.take("with", "tcp", "reset"):
		return Statement{Reject: "tcp-reset"}, true
	case p.take("with", "icmp"):
		with, ok := rejections[p.next()]
		return Statement{Reject: with}, ok
	case p.take("with", "icmpx", "port-unreachable"), p.peek() != "with":
		return Statement{Reject: "icmp-port-unreachable"}, true
	}
	return Statement{}, false
}

var natFlags = map[string]bool{"random": true, "fully-random": true, "persistent": true}

func (p *parser) nat(kind string) (*NAT, bool) {
	n := &NAT{Kind: kind}
	switch {
	case p.take("ip", "addr", ".", "port", "to"), p.take("ip", "to"):
		var ok bool
		if n.Map, ok = p.random(); !ok || !p.take("map") || !p.data(n.Map) {
			return nil, false
		}
	case p.take("to"):
		if n.To = p.next(); n.To == "" {
			return nil, false
		}
	case kind == "dnat" || kind == "snat":
		return nil, false
	}
	for p.peek() != "" {
		for f := range strings.SplitSeq(p.next(), ",") {
			if !natFlags[f] {
				return nil, false
			}
			n.Flags = append(n.Flags, f)
		}
	}
	return n, true
}

func (p *parser) update() (Statement, bool) {
	set, ok := strings.CutPrefix(p.next(), "@")
	if !ok || !p.take("{") {
		return Statement{}, false
	}
	f, ok := p.field()
	return Statement{Update: &Update{set, f}}, ok && p.take("}")
}

// random reads "numgen random mod N".
func (p *parser) random() (*Map, bool) {
	if !p.take("numgen", "random", "mod") {
		return nil, false
	}
	n, err := strconv.Atoi(p.next())
	return &Map{Random: n}, err == nil && n > 0
}

// data reads a map's name or pairs.
func (p *parser) data(m *Map) bool {
	w := p.next()
	if name, ok := strings.CutPrefix(w, "@"); ok {
		m.Name = name
		return true
	}
	if w != "{" {
		return false
	}
	for {
		var key, value []string
		for p.peek() != ":" && p.peek() != "" {
			key = append(key, p.next())
		}
		p.next()
		for p.peek() != "," && p.peek() != "}" && p.peek() != "" {
			value = append(value, p.next())
		}
		m.Pairs = append(m.Pairs, Pair{strings.Join(key, " "), strings.Join(value, " ")})
		switch p.next() {
		case ",":
		case "}":
			return len(key) > 0 && len(value) > 0
		default:
			return false
		}
	}
}

func (p *parser) field() (Field, bool) {
	if p.peek() == "meta" && len(p.words) > 1 && (p.words[1] == "mark" || p.words[1] == "iifname" || p.words[1] == "oifname") && !fields["meta "+p.words[1]] {
		p.next()
	}
	for n := 1; n <= min(3, len(p.words)); n++ {
		name := strings.Join(p.words[:n], " ")
		if !fields[name] {
			continue
		}
		p.words = p.words[n:]
		f := Field{Name: name, Mask: 1<<32 - 1}
		if name == "mark" && p.take("and") {
			mask, err := strconv.ParseUint(p.next(), 0, 32)
			f.Mask = uint32(mask)
			return f, err == nil
		}
		return f, true
	}
	return Field{}, false
}

// about reads what begins with a field: a match, a lookup, a change of the mark.
func (p *parser) about() (Statement, bool) {
	var list []Field
	for {
		f, ok := p.field()
		if !ok {
			return Statement{}, false
		}
		if list = append(list, f); !p.take(".") {
			break
		}
	}
	if p.take("vmap") {
		m := &Map{Fields: list}
		return Statement{Map: m}, p.data(m)
	}
	if p.peek() == "set" {
		p.next()
		m, ok := p.mark()
		return Statement{Mark: m}, ok && len(list) == 1 && list[0].Name == "mark" && list[0].Mask == 1<<32-1
	}
	m := &Match{Fields: list, Not: p.take("!=")}
	return Statement{Match: m}, p.right(m)
}

// mark reads "0x4000", or "mark or 0x4000".
func (p *parser) mark() (*Mark, bool) {
	m := &Mark{Op: "set"}
	if p.take("mark") {
		m.Op = p.next()
	}
	n, err := strconv.ParseUint(p.next(), 0, 32)
	m.Value = uint32(n)
	return m, err == nil && (m.Op == "set" || m.Op == "or" || m.Op == "xor" || m.Op == "and")
}

func (p *parser) right(m *Match) bool {
	w := p.next()
	switch {
	case w == "":
		return false
	case strings.HasPrefix(w, "@"):
		m.Set = w[1:]
	case w == "{":
		for {
			var value []string
			for p.peek() != "," && p.peek() != "}" && p.peek() != "" {
				value = append(value, p.next())
			}
			m.Values = append(m.Values, strings.Join(value, " "))
			switch p.next() {
			case ",":
			case "}":
				return len(value) > 0
			default:
				return false
			}
		}
	case strings.HasPrefix(w, "{"), strings.HasPrefix(w, "<"), strings.HasPrefix(w, ">"), w == "and", w == "or", w == "xor":
		return false
	default:
		m.Values = strings.Split(w, ",")
		for len(m.Fields) > 1 && p.take(".") {
			m.Values[0] += " . " + p.next()
		}
	}
	return true
}
