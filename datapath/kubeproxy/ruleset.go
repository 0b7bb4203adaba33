package kubeproxy

import (
	"fmt"
	"strings"
)

// Ruleset is what iptables-save printed, table by table.
type Ruleset struct {
	Tables []Table
}

// Table is one iptables table with its chains in the order of the text.
type Table struct {
	Name   string
	Chains []Chain
}

// Chain is a chain with its rules.
type Chain struct {
	Name     string
	Policy   string // ACCEPT or DROP; "-" for a chain that is not built in
	Counters Counters
	Rules    []Rule
}

// Counters are packets and bytes seen.
type Counters struct {
	Packets, Bytes uint64
}

// Rule is one rule. Raw decides; the rest is Raw taken apart.
type Rule struct {
	Raw      string    // "-A CHAIN …" as it was read, without counters
	Counters *Counters // nil if the text had none
	Header   []Option  // -s -d -i -o -p -f
	Matches  []Match   // in order; without a protocol match's being implied by -p
	Target   Target
}

// Match is one "-m NAME" with its options.
type Match struct {
	Name    string // empty: options that came before any -m
	Options []Option
	// Known says that the meaning of the match and of all its options is
	// known here. What is not known must not be evaluated.
	Known bool
}

// Target is what a rule does with what it matches. Name is empty for a rule
// that only counts.
type Target struct {
	Name    string
	Goto    bool // -g: return goes to the caller's caller
	Chain   bool // Name is a chain of the same table
	Options []Option
	Known   bool // as in Match
}

// Option is one option with its values; Not is a "!" before it.
type Option struct {
	Name   string
	Not    bool
	Values []string
}

// Value is the first value, empty if there is none.
func (o Option) Value() string {
	if len(o.Values) == 0 {
		return ""
	}
	return o.Values[0]
}

// Option finds an option of the match.
func (m Match) Option(name string) (Option, bool) { return find(m.Options, name) }

// Comment is the text of the rule's first comment.
func (r Rule) Comment() string {
	for _, m := range r.Matches {
		if o, ok := m.Option("--comment"); ok && m.Name == "comment" {
			return o.Value()
		}
	}
	return ""
}

func find(options []Option, name string) (Option, bool) {
	for _, o := range options {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

// Table finds a table by name; nil if there is none.
func (rs *Ruleset) Table(name string) *Table {
	for i := range rs.Tables {
		if rs.Tables[i].Name == name {
			return &rs.Tables[i]
		}
	}
	return nil
}

// Chain finds a chain by name; nil if there is none.
func (t *Table) Chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// String prints the rule set as iptables-save does, without its comments.
func (rs Ruleset) String() string {
	var b strings.Builder
	for _, t := range rs.Tables {
		fmt.Fprintf(&b, "*%s\n", t.Name)
		for _, c := range t.Chains {
			fmt.Fprintf(&b, ":%s %s %v\n", c.Name, c.Policy, c.Counters)
		}
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				if r.Counters != nil {
					fmt.Fprintf(&b, "%v ", *r.Counters)
				}
				b.WriteString(r.Raw + "\n")
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// String is "[packets:bytes]".
func (c Counters) String() string { return fmt.Sprintf("[%d:%d]", c.Packets, c.Bytes) }
