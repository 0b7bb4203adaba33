package datapath

import (
	"fmt"
	"strings"
	"time"
)

// NFTable is an nftables table that belongs to one owner as a whole. Texts are
// in nft's language, spelled as the owner spells them.
type NFTable struct {
	Family  string // ip
	Name    string
	Comment string
	Chains  []NFChain
	Sets    []NFSet
}

// NFChain is a chain with its rules.
type NFChain struct {
	Name    string
	Comment string
	// Type, Hook and Priority are a base chain's, which the kernel's hooks call;
	// Type is empty for one that only rules lead to.
	Type     string // filter | nat
	Hook     string // prerouting | input | forward | output | postrouting
	Priority int
	// Policy of a base chain is what becomes of packets at its end: accept, which
	// is also meant by the empty one, or drop.
	Policy string
	Rules  []NFRule
}

// NFRule is a rule without its comment, and that.
type NFRule struct {
	Text    string
	Comment string
}

// NFSet is a set, or a map if it has values.
type NFSet struct {
	Name    string
	Comment string
	Type    string // of keys, "ipv4_addr . inet_proto . inet_service"
	Value   string // of a map: "verdict"
	// Timeout is for how long an element stays; zero: until it is deleted.
	Timeout time.Duration
	// Dynamic: packets add elements, which are nobody's to compare.
	Dynamic  bool
	Elements []NFElement
}

// NFElement is an element of a set or a map.
type NFElement struct {
	Key     string // "10.96.0.10 . udp . 53"
	Value   string // of a map: "goto service-…"
	Comment string
}

// Base reports whether hooks call the chain.
func (c NFChain) Base() bool { return c.Type != "" }

// Commands are the nft commands that make the table where there is none.
func (t NFTable) Commands() []string {
	of := t.Family + " " + t.Name + " "
	out := []string{fmt.Sprintf("nft add table %s %s", t.Family, t.Name) + braced(commented(t.Comment))}
	for _, s := range t.Sets {
		kind, kinds := "set", s.Type
		if s.Value != "" {
			kind, kinds = "map", s.Type+" : "+s.Value
		}
		out = append(out, "nft add "+kind+" "+of+s.Name+braced("type "+kinds+" ; "+s.flags()+commented(s.Comment)))
	}
	for _, c := range t.Chains {
		base := ""
		if c.Base() {
			base = fmt.Sprintf("type %s hook %s priority %d ; ", c.Type, c.Hook, c.Priority)
		}
		out = append(out, "nft add chain "+of+c.Name+braced(base+commented(c.Comment)))
	}
	for _, s := range t.Sets {
		for _, e := range s.Elements {
			out = append(out, "nft add element "+of+s.Name+" { "+e.String()+" }")
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			out = append(out, "nft add rule "+of+c.Name+" "+r.String())
		}
	}
	return out
}

func (s NFSet) flags() string {
	var w words
	w.addIf(s.Dynamic, "flags dynamic,timeout ;")
	w.addIf(s.Timeout > 0, fmt.Sprintf("timeout %ds ;", int(s.Timeout.Seconds())))
	if len(w) > 0 {
		w.add("")
	}
	return w.String()
}

func commented(text string) string {
	if text == "" {
		return ""
	}
	return fmt.Sprintf("comment %q ; ", text)
}

func braced(inside string) string {
	if inside == "" {
		return ""
	}
	return " { " + strings.TrimSpace(inside) + " }"
}

// String is the rule with its comment.
func (r NFRule) String() string {
	if r.Comment == "" {
		return r.Text
	}
	return fmt.Sprintf("%s comment %q", r.Text, r.Comment)
}

// String is the element as nft takes it.
func (e NFElement) String() string {
	out := e.Key
	if e.Comment != "" {
		out += fmt.Sprintf(" comment %q", e.Comment)
	}
	if e.Value != "" {
		out += " : " + e.Value
	}
	return out
}

// Size is the number of rules and elements.
func (t NFTable) Size() int {
	n := 0
	for _, c := range t.Chains {
		n += len(c.Rules)
	}
	for _, s := range t.Sets {
		n += len(s.Elements)
	}
	return n
}
