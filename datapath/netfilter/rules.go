package netfilter

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
)

// Rules are rule sets ready to be asked, by several goroutines if need be.
type Rules struct {
	tables map[string]*table
	nft    map[string][]Stop // by hook
	bases  map[string]*base  // by Stop.Table
}

func newRules() *Rules {
	return &Rules{tables: map[string]*table{}, nft: map[string][]Stop{}, bases: map[string]*base{}}
}

type table struct {
	name   string
	chains map[string]*chain
	sets   map[string]*set // of nftables: not nil
}

type chain struct {
	name   string
	policy string // "-" for a chain that is not built in
	lines  []string
	nft    []datapath.NFRule // instead of lines
	once   sync.Once
	ready  []rule // of lines, once a packet has come here
}

// rule is a rule with as much of it understood as has been needed.
type rule struct {
	raw  string
	text string // of nftables: raw without the comment
	head header // a part of the rule, which must match
	full atomic.Pointer[body]
}

// body is a rule completely taken apart.
type body struct {
	head    header
	matches []match
	target  target
	broken  string // why the rule cannot be taken apart at all
}

// Parse takes what iptables-save printed, by table (NetState.RuleSave). Only
// lines are told apart here; a rule is looked at when a packet comes to its
// chain, and if it is not understood then the outcome is unknown.
func Parse(saves map[string]string) (*Rules, error) {
	r := newRules()
	for name, text := range saves {
		p := splitter{rules: r}
		number := 0
		for line := range strings.Lines(text) {
			number++
			if err := p.line(strings.TrimSpace(line)); err != nil {
				return nil, fmt.Errorf("iptables-save of table %s: line %d: %w", name, number, err)
			}
		}
	}
	return r, nil
}

// splitter sorts lines into chains.
type splitter struct {
	rules *Rules
	table *table
	last  *chain // of the line before: the next is mostly of the same
}

func (p *splitter) line(s string) error {
	switch {
	case s == "" || s[0] == '#' || s == "COMMIT":
		return nil
	case s[0] == '*':
		p.table, p.last = &table{name: s[1:], chains: map[string]*chain{}}, nil
		if p.rules.tables[s[1:]] != nil {
			return fmt.Errorf("table %s a second time", s[1:])
		}
		p.rules.tables[s[1:]] = p.table
		return nil
	case p.table == nil:
		return fmt.Errorf("outside of a table: %q", s)
	case s[0] == ':':
		name, rest, _ := strings.Cut(s[1:], " ")
		policy, _, _ := strings.Cut(rest, " ")
		p.table.chains[name] = &chain{name: name, policy: policy}
		return nil
	case s[0] == '[':
		_, s, _ = strings.Cut(s, "] ")
	}
	rest, ok := strings.CutPrefix(s, "-A ")
	name, _, _ := strings.Cut(rest, " ")
	if p.last == nil || p.last.name != name {
		p.last = p.table.chains[name]
	}
	if !ok || p.last == nil {
		return fmt.Errorf("neither a rule of a declared chain nor anything else: %q", s)
	}
	p.last.lines = append(p.last.lines, s)
	return nil
}

// Compile prepares a rule set that is parsed already.
func Compile(rs *kubeproxy.Ruleset) *Rules {
	r := newRules()
	for _, t := range rs.Tables {
		out := &table{name: t.Name, chains: map[string]*chain{}}
		for _, c := range t.Chains {
			lines := make([]string, len(c.Rules))
			for i, rule := range c.Rules {
				lines[i] = rule.Raw
			}
			out.chains[c.Name] = &chain{name: c.Name, policy: c.Policy, lines: lines}
		}
		r.tables[t.Name] = out
	}
	return r
}

// rules are the chain's rules with the header options that they begin with.
func (c *chain) rules() []rule {
	c.once.Do(func() {
		c.ready = make([]rule, len(c.lines)+len(c.nft))
		for i, r := range c.nft {
			c.ready[i].raw, c.ready[i].text = r.String(), r.Text
		}
		for i, raw := range c.lines {
			c.ready[i].raw = raw
			c.ready[i].head = leadingHeader(raw)
		}
	})
	return c.ready
}

// body takes the rule apart when it is needed for the first time.
func (r *rule) body(t *table) *body {
	if b := r.full.Load(); b != nil {
		return b
	}
	var b *body
	if t.sets != nil {
		b = t.compileNFT(r.text)
	} else {
		b = t.compile(r.raw)
	}
	r.full.Store(b)
	return b
}

func (t *table) compile(raw string) *body {
	_, parsed, err := kubeproxy.ParseRule(raw)
	if err != nil {
		return &body{broken: err.Error()}
	}
	b := &body{}
	for _, o := range parsed.Header {
		if err := b.head.set(o.Name, o.Not, o.Value()); err != nil {
			return &body{broken: err.Error()}
		}
	}
	for _, m := range parsed.Matches {
		if m.Name == "" { // "-p tcp --dport 80" means the protocol's match
			m.Name = b.head.protoName
		}
		b.matches = append(b.matches, newMatch(m))
	}
	b.target = t.newTarget(parsed.Target)
	return b
}
