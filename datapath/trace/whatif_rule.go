package trace

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"slipway/datapath/kubeproxy"
)

// ruleTable is one table of iptables-save output, as lines.
type ruleTable struct {
	name   string
	chains []ruleChain
}

// ruleChain is a chain with its rules, "-A CHAIN …" without counters.
type ruleChain struct {
	name, policy string // policy "-": not built in
	rules        []string
}

// parseTable reads one table as iptables-save prints it, with or without
// counters, which are not kept.
func parseTable(save string) (*ruleTable, error) {
	t := &ruleTable{}
	for line := range strings.Lines(save) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			_, line, _ = strings.Cut(line, " ")
		}
		switch {
		case line == "" || line[0] == '#' || line == "COMMIT":
		case line[0] == '*':
			t.name = line[1:]
		case line[0] == ':':
			f := strings.Fields(line[1:])
			if len(f) < 2 {
				return nil, fmt.Errorf("not a chain: %q", line)
			}
			t.chains = append(t.chains, ruleChain{name: f[0], policy: f[1]})
		default:
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "-A" {
				return nil, fmt.Errorf("not a rule: %q", line)
			}
			c := t.chain(f[1])
			if c == nil {
				return nil, fmt.Errorf("a rule of chain %s, which is not declared", f[1])
			}
			c.rules = append(c.rules, line)
		}
	}
	return t, nil
}

// chain finds a chain; nil if there is none.
func (t *ruleTable) chain(name string) *ruleChain {
	for i := range t.chains {
		if t.chains[i].name == name {
			return &t.chains[i]
		}
	}
	return nil
}

// String prints the table as iptables-save does.
func (t *ruleTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", t.name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, ":%s %s [0:0]\n", c.name, c.policy)
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			b.WriteString(r + "\n")
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// servicePrefixes are those of kube-proxy's chains that belong to one service
// or endpoint, and go with it (datapath/kubeproxy names them).
var servicePrefixes = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-FW-", "KUBE-EXT-", "KUBE-SEP-"}

// replace puts new chains in the place of those with the same names, and drops
// those of services and endpoints that are not among them.
func (t *ruleTable) replace(chains, rules []string) {
	t.chains = slices.DeleteFunc(t.chains, func(c ruleChain) bool {
		return slices.Contains(chains, c.name) || slices.ContainsFunc(servicePrefixes, func(p string) bool { return strings.HasPrefix(c.name, p) })
	})
	at := map[string]int{}
	for _, name := range chains {
		at[name] = len(t.chains)
		t.chains = append(t.chains, ruleChain{name: name, policy: "-"})
	}
	for _, r := range rules {
		c := &t.chains[at[strings.Fields(r)[1]]]
		c.rules = append(c.rules, r)
	}
}

// parseRuleEdit reads "rule [NODE] [-t TABLE] -I CHAIN …".
func parseRuleEdit(w *words) (Edit, error) {
	place, err := w.optionalPlace(func(s string) bool { return strings.HasPrefix(s, "-") })
	if err != nil {
		return Edit{}, err
	}
	table := "filter"
	if w.is("-t") || w.is("--table") {
		if table, err = w.choose("raw", "mangle", "nat", "filter", "security"); err != nil {
			return Edit{}, err
		}
	}
	do, err := parseRuleCommand(w)
	if err != nil {
		return Edit{}, err
	}
	return Edit{place: place, state: func(c *editing) error {
		save, ok := c.RuleSave[table]
		if !ok {
			save = emptyTables[table]
		}
		t, err := parseTable(save)
		if err != nil {
			return fmt.Errorf("table %s of %s: %w", table, c.place.Label, err)
		}
		if err := do(t); err != nil {
			return fmt.Errorf("table %s of %s: %w", table, c.place.Label, err)
		}
		if c.RuleSave == nil {
			c.RuleSave = map[string]string{}
		}
		c.RuleSave[table] = t.String()
		return nil
	}}, nil
}

// emptyTables are the tables with their built-in chains, as the kernel makes
// them with the first rule (net/ipv4/netfilter/iptable_*.c, valid_hooks).
var emptyTables = map[string]string{
	"raw":      emptyTable("raw", "PREROUTING", "OUTPUT"),
	"mangle":   emptyTable("mangle", "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
	"nat":      emptyTable("nat", "PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
	"filter":   emptyTable("filter", "INPUT", "FORWARD", "OUTPUT"),
	"security": emptyTable("security", "INPUT", "FORWARD", "OUTPUT"),
}

func emptyTable(name string, chains ...string) string {
	t := ruleTable{name: name}
	for _, c := range chains {
		t.chains = append(t.chains, ruleChain{name: c, policy: "ACCEPT"})
	}
	return t.String()
}

// parseRuleCommand reads one of iptables' commands with its rule.
func parseRuleCommand(w *words) (func(*ruleTable) error, error) {
	command, err := w.choose("-A", "-I", "-D", "-P", "--append", "--insert", "--delete", "--policy")
	if err != nil {
		return nil, err
	}
	chain, err := w.take("a chain")
	if err != nil {
		return nil, err
	}
	switch command {
	case "-P", "--policy":
		policy, err := w.choose("ACCEPT", "DROP")
		return onChain(chain, func(c *ruleChain) error { return c.setPolicy(policy) }), err
	case "-A", "--append":
		rule, err := w.rule(chain)
		return onChain(chain, func(c *ruleChain) error { c.rules = append(c.rules, rule); return nil }), err
	}
	at := 0
	if n, err := strconv.Atoi(w.peek()); err == nil && n > 0 {
		at = n
		w.next++
	}
	if command == "-D" || command == "--delete" {
		rule := ""
		if at == 0 {
			if rule, err = w.rule(chain); err != nil {
				return nil, err
			}
		}
		return onChain(chain, func(c *ruleChain) error { return c.remove(at, rule) }), nil
	}
	rule, err := w.rule(chain)
	return onChain(chain, func(c *ruleChain) error { return c.insert(max(at, 1), rule) }), err
}

// onChain finds the chain that a command works on.
func onChain(name string, do func(*ruleChain) error) func(*ruleTable) error {
	return func(t *ruleTable) error {
		c := t.chain(name)
		if c == nil {
			return fmt.Errorf("there is no chain %s", name)
		}
		return do(c)
	}
}

func (c *ruleChain) setPolicy(p string) error {
	if c.policy == "-" {
		return fmt.Errorf("chain %s is not built in and has no policy", c.name)
	}
	c.policy = p
	return nil
}

func (c *ruleChain) insert(at int, rule string) error {
	if at > len(c.rules)+1 {
		return fmt.Errorf("chain %s has only %d rules", c.name, len(c.rules))
	}
	c.rules = slices.Insert(c.rules, at-1, rule)
	return nil
}

// remove takes out the rule with a number, from 1, or with a text.
func (c *ruleChain) remove(at int, rule string) error {
	if at == 0 {
		at = slices.Index(c.rules, rule) + 1
		if at == 0 {
			return fmt.Errorf("chain %s has no rule %q", c.name, rule)
		}
	}
	if at > len(c.rules) {
		return fmt.Errorf("chain %s has only %d rules", c.name, len(c.rules))
	}
	c.rules = slices.Delete(c.rules, at-1, at)
	return nil
}

// longOptions are iptables(8)'s long forms of the options that a rule begins with.
var longOptions = map[string]string{
	"--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d", "--in-interface": "-i", "--out-interface": "-o",
	"--protocol": "-p", "--proto": "-p", "--match": "-m", "--jump": "-j", "--goto": "-g",
	"--source-port": "--sport", "--destination-port": "--dport",
}

// rule reads the rest of the edit as a rule and spells it as iptables-save
// does, as far as its matches are known; one that is not stays as it is
// written, and ends a prediction that meets it as unknown.
func (w *words) rule(chain string) (string, error) {
	if !w.more() {
		return "", w.bad("a rule such as -s 10.244.0.0/16 -j DROP")
	}
	begin := w.all[w.next].column
	out := []string{"-A", chain}
	protocol, matched := "", false
	for w.more() {
		x := w.all[w.next]
		s := x.text
		if long, ok := longOptions[s]; ok {
			s = long
		}
		switch last := out[len(out)-1]; {
		case last == "-p":
			protocol = strings.ToLower(s)
		case last == "-m":
			matched = matched || s == "tcp" || s == "udp" || s == "sctp"
		case (s == "--sport" || s == "--dport") && !matched:
			if protocol == "" {
				return "", w.bad("-p tcp or -p udp before a port")
			}
			out, matched = withMatch(out, protocol), true
		}
		if x.quoted || s == "" {
			s = strconv.Quote(s)
		}
		out = append(out, s)
		w.next++
	}
	rule := strings.Join(out, " ")
	save, err := kubeproxy.SaveForm(rule)
	if err == nil {
		return save, nil
	}
	if _, err := kubeproxy.ParseSave("*t\n:" + chain + " - [0:0]\n" + rule + "\nCOMMIT\n"); err != nil {
		return "", fmt.Errorf("column %d: %w", begin, errors.Unwrap(err))
	}
	return rule, nil
}

// withMatch adds the match of a protocol that -p implies, before a "!" that
// belongs to its option.
func withMatch(out []string, protocol string) []string {
	if n := len(out) - 1; out[n] == "!" {
		return append(out[:n], "-m", protocol, "!")
	}
	return append(out, "-m", protocol)
}
