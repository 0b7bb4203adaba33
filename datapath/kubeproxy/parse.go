package kubeproxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseSave reads the output of iptables-save, or the input of
// iptables-restore as far as it only declares chains and appends rules. Errors
// name the line. Matches and targets that are not known are kept, with Known
// unset.
func ParseSave(text string) (Ruleset, error) {
	p := saveParser{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if err := p.line(strings.TrimSpace(line)); err != nil {
			return Ruleset{}, fmt.Errorf("parse iptables-save: line %d: %w", number, err)
		}
	}
	if p.table != nil {
		return Ruleset{}, fmt.Errorf("parse iptables-save: table %s: no COMMIT", p.table.Name)
	}
	return p.rs, nil
}

type saveParser struct {
	rs     Ruleset
	table  *Table         // being read; nil between tables
	chains map[string]int // index in table.Chains
}

func (p *saveParser) line(s string) error {
	switch {
	case s == "" || s[0] == '#':
		return nil
	case s[0] == '*':
		return p.begin(s[1:])
	case p.table == nil:
		return fmt.Errorf("outside of a table: %q", s)
	case s == "COMMIT":
		p.commit()
		return nil
	case s[0] == ':':
		return p.chain(s[1:])
	default:
		return p.rule(s)
	}
}

func (p *saveParser) begin(name string) error {
	if p.table != nil {
		return fmt.Errorf("table %s begins inside table %s", name, p.table.Name)
	}
	if name == "" || strings.ContainsAny(name, " \t") {
		return fmt.Errorf("not a table name: %q", name)
	}
	if p.rs.Table(name) != nil {
		return fmt.Errorf("table %s a second time", name)
	}
	p.table, p.chains = &Table{Name: name}, map[string]int{}
	return nil
}

// commit ends the table; only now are all of its chains known as targets.
func (p *saveParser) commit() {
	for _, c := range p.table.Chains {
		for i := range c.Rules {
			t := &c.Rules[i].Target
			if _, ok := p.chains[t.Name]; ok {
				t.Chain, t.Known = true, len(t.Options) == 0
			}
		}
	}
	p.rs.Tables = append(p.rs.Tables, *p.table)
	p.table = nil
}

func (p *saveParser) chain(s string) error {
	f := strings.Fields(s)
	if len(f) < 2 || len(f) > 3 {
		return fmt.Errorf("not a chain: %q", ":"+s)
	}
	if _, ok := p.chains[f[0]]; ok {
		return fmt.Errorf("chain %s a second time", f[0])
	}
	c := Chain{Name: f[0], Policy: f[1]}
	if len(f) == 3 {
		var err error
		if c.Counters, err = parseCounters(f[2]); err != nil {
			return fmt.Errorf("chain %s: %w", f[0], err)
		}
	}
	p.chains[c.Name] = len(p.table.Chains)
	p.table.Chains = append(p.table.Chains, c)
	return nil
}

func (p *saveParser) rule(s string) error {
	var counters *Counters
	if s[0] == '[' {
		head, rest, _ := strings.Cut(s, " ")
		c, err := parseCounters(head)
		if err != nil {
			return err
		}
		counters, s = &c, strings.TrimSpace(rest)
	}
	chain, r, err := parseRule(s)
	if err != nil {
		return err
	}
	i, ok := p.chains[chain]
	if !ok {
		return fmt.Errorf("rule in chain %s, which is not declared", chain)
	}
	r.Counters = counters
	p.table.Chains[i].Rules = append(p.table.Chains[i].Rules, r)
	return nil
}

func parseCounters(s string) (Counters, error) {
	inner, ok := strings.CutPrefix(s, "[")
	inner, ok2 := strings.CutSuffix(inner, "]")
	packets, bytes, ok3 := strings.Cut(inner, ":")
	if !ok || !ok2 || !ok3 {
		return Counters{}, fmt.Errorf("not counters: %q", s)
	}
	p, err1 := strconv.ParseUint(packets, 10, 64)
	b, err2 := strconv.ParseUint(bytes, 10, 64)
	if errors.Join(err1, err2) != nil {
		return Counters{}, fmt.Errorf("not counters: %q", s)
	}
	return Counters{p, b}, nil
}

// parseRule takes one "-A CHAIN …" apart.
func parseRule(raw string) (chain string, r Rule, err error) {
	words, err := tokens(raw)
	if err != nil {
		return "", Rule{}, err
	}
	if len(words) < 2 || !words[0].is("-A") {
		return "", Rule{}, fmt.Errorf("neither a rule nor anything else: %q", raw)
	}
	r.Raw = raw
	p := ruleParser{words: words[2:], rule: &r}
	if err := p.run(); err != nil {
		return "", Rule{}, fmt.Errorf("%w in %q", err, raw)
	}
	for i := range r.Matches {
		r.Matches[i].Known = knownOptions(matchForms, r.Matches[i].Name, r.Matches[i].Options)
	}
	r.Target.Known = r.Target.Name == "" || knownOptions(targetForms, r.Target.Name, r.Target.Options)
	return words[1].text, r, nil
}

type ruleParser struct {
	words    []word
	rule     *Rule
	inTarget bool
}

func (p *ruleParser) run() error {
	for len(p.words) > 0 {
		not := p.words[0].is("!")
		if not {
			p.words = p.words[1:]
		}
		if len(p.words) == 0 || !p.words[0].option() {
			return errors.New("a word where an option must be")
		}
		o := Option{Name: p.words[0].text, Not: not}
		n := 1
		for n < len(p.words) && !p.words[n].option() && !p.words[n].is("!") {
			o.Values = append(o.Values, p.words[n].text)
			n++
		}
		p.words = p.words[n:]
		if err := p.option(o); err != nil {
			return err
		}
	}
	return nil
}

// option puts an option where it belongs. Header options may stand between a
// match and its options: kube-proxy writes "-m tcp -p tcp --dport 80".
func (p *ruleParser) option(o Option) error {
	switch o.Name {
	case "-m", "-j", "-g":
		if len(o.Values) != 1 || o.Not {
			return fmt.Errorf("%s without one name", o.Name)
		}
		if o.Name == "-m" {
			p.rule.Matches = append(p.rule.Matches, Match{Name: o.Value()})
			p.inTarget = false
			return nil
		}
		if p.rule.Target.Name != "" {
			return errors.New("a second target")
		}
		p.rule.Target = Target{Name: o.Value(), Goto: o.Name == "-g"}
		p.inTarget = true
	case "-s", "-d", "-i", "-o", "-p":
		if len(o.Values) != 1 {
			return fmt.Errorf("%s without one value", o.Name)
		}
		p.rule.Header = append(p.rule.Header, o)
	case "-f":
		p.rule.Header = append(p.rule.Header, o)
	default:
		p.extra(o)
	}
	return nil
}

func (p *ruleParser) extra(o Option) {
	if p.inTarget {
		p.rule.Target.Options = append(p.rule.Target.Options, o)
		return
	}
	if len(p.rule.Matches) == 0 {
		p.rule.Matches = append(p.rule.Matches, Match{})
	}
	m := &p.rule.Matches[len(p.rule.Matches)-1]
	m.Options = append(m.Options, o)
}

// word is one token of a rule; what was in quotes is never an option.
type word struct {
	text   string
	quoted bool
}

func (w word) is(s string) bool { return !w.quoted && w.text == s }
func (w word) option() bool     { return !w.quoted && len(w.text) > 1 && w.text[0] == '-' }

// tokens splits at blanks; double quotes hold blanks, and inside them a
// backslash takes the next character as it is (iptables xshared.c,
// add_param_to_argv; libxtables xtables.c, xtables_save_string).
func tokens(s string) ([]word, error) {
	out := make([]word, 0, 24)
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return out, nil
		}
		end := strings.IndexAny(s, " \t\"")
		if end < 0 {
			end = len(s)
		}
		if end == len(s) || s[end] != '"' {
			out = append(out, word{text: s[:end]})
			s = s[end:]
			continue
		}
		w, rest, err := quotedWord(s)
		if err != nil {
			return nil, err
		}
		out, s = append(out, w), rest
	}
}

// quotedWord reads one word that has quotes somewhere in it.
func quotedWord(s string) (w word, rest string, err error) {
	var b strings.Builder
	open := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			open = !open
		case open && c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case !open && (c == ' ' || c == '\t'):
			return word{b.String(), true}, s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if open {
		return word{}, "", fmt.Errorf("quote does not end: %q", s)
	}
	return word{b.String(), true}, "", nil
}
