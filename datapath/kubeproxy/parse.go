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
	last   int            // in table.Chains, of the rule before: the next is mostly of the same

	rules ruleParser
	keep  keeper
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
	p.table, p.chains, p.last = &Table{Name: name}, map[string]int{}, -1
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
		counters, s = p.keep.counters.one(c), strings.TrimSpace(rest)
	}
	chain, r, err := p.rules.parse(s)
	if err != nil {
		return err
	}
	if p.last < 0 || p.table.Chains[p.last].Name != chain {
		i, ok := p.chains[chain]
		if !ok {
			return fmt.Errorf("rule in chain %s, which is not declared", chain)
		}
		p.last = i
	}
	r = p.keep.rule(r)
	r.Counters = counters
	c := &p.table.Chains[p.last]
	c.Rules = append(c.Rules, r)
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
	return new(ruleParser).parse(raw)
}

// ruleParser takes rules apart. What parse returns shares the parser's memory
// and is good until the next call.
type ruleParser struct {
	text   []string // words
	quoted []bool   // the word had quotes, so it is neither an option nor "!"
	next   int

	header, options []Option // options: of the matches and the target, in order
	matches         []Match
	target          Target
	start           int // in options, of the extension being read
}

func (p *ruleParser) parse(raw string) (chain string, r Rule, err error) {
	*p = ruleParser{text: p.text[:0], quoted: p.quoted[:0], header: p.header[:0], options: p.options[:0], matches: p.matches[:0]}
	if err := p.split(raw); err != nil {
		return "", Rule{}, err
	}
	if len(p.text) < 2 || !p.is(0, "-A") {
		return "", Rule{}, fmt.Errorf("neither a rule nor anything else: %q", raw)
	}
	p.next = 2
	for p.next < len(p.text) {
		if err := p.option(); err != nil {
			return "", Rule{}, fmt.Errorf("%w in %q", err, raw)
		}
	}
	p.close()
	for i := range p.matches {
		p.matches[i].Known = knownOptions(matchForms, p.matches[i].Name, p.matches[i].Options)
	}
	p.target.Known = p.target.Name == "" || knownOptions(targetForms, p.target.Name, p.target.Options)
	return p.text[1], Rule{Raw: raw, Header: p.header, Matches: p.matches, Target: p.target}, nil
}

func (p *ruleParser) is(i int, s string) bool { return !p.quoted[i] && p.text[i] == s }

func (p *ruleParser) isOption(i int) bool {
	return !p.quoted[i] && len(p.text[i]) > 1 && p.text[i][0] == '-'
}

// option reads one option with its values and puts it where it belongs. Header
// options may stand between a match and its options: kube-proxy writes
// "-m tcp -p tcp --dport 80".
func (p *ruleParser) option() error {
	not := p.is(p.next, "!")
	if not {
		p.next++
	}
	if p.next == len(p.text) || !p.isOption(p.next) {
		return errors.New("a word where an option must be")
	}
	at := p.next
	for p.next++; p.next < len(p.text) && !p.isOption(p.next) && !p.is(p.next, "!"); p.next++ {
	}
	o := Option{Name: p.text[at], Not: not}
	if p.next > at+1 {
		o.Values = p.text[at+1 : p.next : p.next]
	}
	switch o.Name {
	case "-m", "-j", "-g":
		return p.extension(o)
	case "-s", "-d", "-i", "-o", "-p":
		if len(o.Values) != 1 {
			return fmt.Errorf("%s without one value", o.Name)
		}
		p.header = append(p.header, o)
	case "-f":
		p.header = append(p.header, o)
	default:
		if len(p.matches) == 0 && p.target.Name == "" {
			p.matches = append(p.matches, Match{})
		}
		p.options = append(p.options, o)
	}
	return nil
}

// extension begins a match or the target, which the options after it belong to.
func (p *ruleParser) extension(o Option) error {
	if len(o.Values) != 1 || o.Not {
		return fmt.Errorf("%s without one name", o.Name)
	}
	if p.target.Name != "" {
		return errors.New("a second target, or a match after it")
	}
	p.close()
	if o.Name == "-m" {
		p.matches = append(p.matches, Match{Name: o.Value()})
	} else {
		p.target = Target{Name: o.Value(), Goto: o.Name == "-g"}
	}
	return nil
}

// close hands the options read so far to the extension that they belong to.
func (p *ruleParser) close() {
	if mine := p.options[p.start:len(p.options):len(p.options)]; len(mine) > 0 {
		if p.target.Name != "" {
			p.target.Options = mine
		} else {
			p.matches[len(p.matches)-1].Options = mine
		}
	}
	p.start = len(p.options)
}

// split cuts at blanks; double quotes hold blanks, and inside them a backslash
// takes the next character as it is (iptables xshared.c, add_param_to_argv;
// libxtables xtables.c, xtables_save_string).
func (p *ruleParser) split(s string) error {
	for {
		for s != "" && (s[0] == ' ' || s[0] == '\t') {
			s = s[1:]
		}
		if s == "" {
			return nil
		}
		end := 0
		for end < len(s) && s[end] != ' ' && s[end] != '\t' && s[end] != '"' {
			end++
		}
		if end == len(s) || s[end] != '"' {
			p.text, p.quoted = append(p.text, s[:end]), append(p.quoted, false)
			s = s[end:]
			continue
		}
		word, rest, err := quotedWord(s)
		if err != nil {
			return err
		}
		p.text, p.quoted = append(p.text, word), append(p.quoted, true)
		s = rest
	}
}

// quotedWord reads one word that has quotes somewhere in it.
func quotedWord(s string) (word, rest string, err error) {
	if s[0] == '"' { // mostly the quotes are around the word and hold no others
		end := strings.IndexAny(s[1:], `"\\`) + 1
		if end > 0 && s[end] == '"' && (end+1 == len(s) || s[end+1] == ' ') {
			return s[1:end], s[end+1:], nil
		}
	}
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
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if open {
		return "", "", fmt.Errorf("quote does not end: %q", s)
	}
	return b.String(), "", nil
}

// ParseRule takes one "-A CHAIN …" of iptables-save, without counters, apart.
// Target.Chain is never set: a single rule does not say which names are chains.
func ParseRule(raw string) (chain string, r Rule, err error) { return parseRule(raw) }
