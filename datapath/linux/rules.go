package linux

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/internal/run"
)

// savedTable is one table of iptables-save output, or what is wanted of one.
type savedTable struct {
	chains  []string            // in order, built-in ones too
	builtin map[string]bool     // of every chain: whether it has a policy
	rules   map[string][]string // by chain, "-A CHAIN …"
}

// splitTables splits iptables-save output by table, without comments and counters.
func splitTables(save string) map[string]string {
	tables := map[string]*strings.Builder{}
	table := &strings.Builder{}
	for line := range strings.Lines(save) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			table = &strings.Builder{}
			tables[line[1:]] = table
		case line == "COMMIT" || line == "" || line[0] == '#':
		case line[0] == ':':
			if i := strings.IndexByte(line, '['); i > 0 {
				line = strings.TrimRight(line[:i], " ")
			}
			fallthrough
		default:
			table.WriteString(line + "\n")
		}
	}
	out := make(map[string]string, len(tables))
	for name, b := range tables {
		out[name] = b.String()
	}
	return out
}

// parseTable parses a table as splitTables leaves it.
func parseTable(text string) savedTable {
	t := savedTable{builtin: map[string]bool{}, rules: map[string][]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, ":") {
			name, policy, _ := strings.Cut(line[1:], " ")
			t.chains = append(t.chains, name)
			t.builtin[name] = policy != "-"
			continue
		}
		if chain, ok := ruleChain(line); ok {
			t.rules[chain] = append(t.rules[chain], line)
		}
	}
	return t
}

// ruleChain is the chain of "-A CHAIN …".
func ruleChain(rule string) (string, bool) {
	rest, ok := strings.CutPrefix(rule, "-A ")
	chain, _, _ := strings.Cut(rest, " ")
	return chain, ok && chain != ""
}

// wantedTable is what all rule sets together want of one table.
type wantedTable struct {
	chains  []string
	rules   map[string][]string
	prepend map[string][]string // jumps, by built-in chain
	jumps   map[string][]string // the others
}

func wantedTables(sets []datapath.RuleSet) map[string]*wantedTable {
	out := map[string]*wantedTable{}
	for _, set := range sets {
		for _, t := range set.Tables {
			w := out[t.Name]
			if w == nil {
				w = &wantedTable{rules: map[string][]string{}, prepend: map[string][]string{}, jumps: map[string][]string{}}
				out[t.Name] = w
			}
			w.chains = append(w.chains, t.Chains...)
			for _, r := range t.Rules {
				chain, _ := ruleChain(r)
				w.rules[chain] = append(w.rules[chain], r)
			}
			for _, j := range t.Jumps {
				chain, _ := ruleChain(j.Rule)
				into := w.jumps
				if j.Prepend {
					into = w.prepend
				}
				into[chain] = append(into[chain], j.Rule)
			}
		}
	}
	return out
}

// rules compares the owned chains and jumps of every table, and writes the
// iptables-restore input for those that differ.
func (s *steps) rules(st datapath.KernelState) {
	if st.RuleSave == nil {
		return
	}
	wanted := wantedTables(s.cfg.RuleSets)
	names := slices.Collect(maps.Keys(wanted))
	for name := range st.RuleSave {
		if wanted[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		want := wanted[name]
		if want == nil {
			want = &wantedTable{}
		}
		if lines := s.table(name, want, parseTable(st.RuleSave[name])); lines != "" {
			fmt.Fprintf(&b, "*%s\n%sCOMMIT\n", name, lines)
		}
	}
	s.restore = b.String()
}

// table compares one table and returns the restore lines that it needs: chains
// are declared, which empties them, then old jumps deleted, chains filled, new
// jumps made, and chains deleted that nobody wants.
func (s *steps) table(name string, want *wantedTable, have savedTable) string {
	var declare, fill, drop []string
	wanted := map[string]bool{}
	for _, c := range want.chains {
		wanted[c] = true
		if s.chain(name, c, want.rules[c], have) {
			declare = append(declare, ":"+c+" - [0:0]")
			fill = append(fill, want.rules[c]...)
		}
	}
	for _, c := range have.chains {
		if !have.builtin[c] && !wanted[c] && ownsChain(s.cfg, c) {
			s.rule(datapath.Remove, fmt.Sprintf("iptables -t %s -X %s", name, c), c)
			declare = append(declare, ":"+c+" - [0:0]")
			drop = append(drop, "-X "+c)
		}
	}
	unjump, jump := s.jumps(name, want, have)
	lines := slices.Concat(declare, unjump, fill, jump, drop)
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// chain compares one owned chain and reports whether it has to be refilled.
func (s *steps) chain(table, chain string, want []string, have savedTable) bool {
	if _, ok := have.builtin[chain]; !ok {
		s.rule(datapath.Add, fmt.Sprintf("iptables -t %s -N %s # %d rules", table, chain, len(want)), "")
		return true
	}
	is := have.rules[chain]
	for i := range max(len(is), len(want)) {
		switch {
		case i >= len(want):
			s.rule(datapath.Remove, fmt.Sprintf("iptables -t %s -D %s %d", table, chain, i+1), is[i])
		case i >= len(is):
			s.rule(datapath.Add, fmt.Sprintf("iptables -t %s %s", table, want[i]), "")
		case is[i] != want[i] && canonical(is[i]) != canonical(want[i]):
			s.rule(datapath.Update, fmt.Sprintf("iptables -t %s -R %s %d %s", table, chain, i+1, strings.TrimPrefix(want[i], "-A "+chain+" ")), is[i])
		default:
			continue
		}
		return true
	}
	return false
}

// jumps compares the owned jumps of the built-in chains: those to prepend must
// be the first rules, the others must each be there once, and no more. A chain
// that differs has all its owned jumps taken out and put in again.
func (s *steps) jumps(table string, want *wantedTable, have savedTable) (out, in []string) {
	chains := slices.Concat(slices.Collect(maps.Keys(want.prepend)), slices.Collect(maps.Keys(want.jumps)))
	for c := range have.rules {
		if have.builtin[c] {
			chains = append(chains, c)
		}
	}
	slices.Sort(chains)
	for _, c := range slices.Compact(chains) {
		owned := slices.DeleteFunc(slices.Clone(have.rules[c]), func(r string) bool { return !s.ownsJump(r, want, c) })
		first := have.rules[c][:min(len(have.rules[c]), len(want.prepend[c]))]
		rest := slices.Concat(want.prepend[c], want.jumps[c])
		if equalRules(first, want.prepend[c]) && sameRules(owned, rest) {
			continue
		}
		s.jumpChanges(table, owned, rest)
		for _, r := range owned {
			out = append(out, "-D "+strings.TrimPrefix(r, "-A "))
		}
		for i, r := range want.prepend[c] {
			in = append(in, fmt.Sprintf("-I %s %d %s", c, i+1, strings.TrimPrefix(r, "-A "+c+" ")))
		}
		in = append(in, want.jumps[c]...)
	}
	return out, in
}

// ownsJump reports whether a rule of a built-in chain is a jump of ours: to an
// owned chain, or one that is wanted word for word.
func (s *steps) ownsJump(rule string, want *wantedTable, chain string) bool {
	if to := target(rule); ownsChain(s.cfg, to) {
		return true
	}
	is := func(r string) bool { return canonical(r) == canonical(rule) }
	return slices.ContainsFunc(want.prepend[chain], is) || slices.ContainsFunc(want.jumps[chain], is)
}

// jumpChanges reports what is missing and what is too many; where it is only
// the order, the first jump.
func (s *steps) jumpChanges(table string, is, want []string) {
	n := len(s.list)
	count := map[string]int{}
	for _, r := range is {
		count[canonical(r)]++
	}
	for _, r := range want {
		if count[canonical(r)]--; count[canonical(r)] < 0 {
			s.rule(datapath.Add, fmt.Sprintf("iptables -t %s %s", table, r), "")
		}
	}
	for _, r := range is {
		if count[canonical(r)] > 0 {
			count[canonical(r)]--
			s.rule(datapath.Remove, fmt.Sprintf("iptables -t %s -D %s", table, strings.TrimPrefix(r, "-A ")), r)
		}
	}
	if len(s.list) == n && len(want) > 0 {
		s.rule(datapath.Update, fmt.Sprintf("iptables -t %s %s", table, want[0]), "out of order")
	}
}

func (s *steps) rule(action datapath.ChangeAction, command, was string) {
	s.add(stageRules, action, "rules", command, was, nil)
}

func equalRules(a, b []string) bool {
	return slices.EqualFunc(a, b, func(x, y string) bool { return canonical(x) == canonical(y) })
}

// sameRules reports whether a and b hold the same rules, each as often.
func sameRules(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	ca, cb := make([]string, len(a)), make([]string, len(b))
	for i := range a {
		ca[i], cb[i] = canonical(a[i]), canonical(b[i])
	}
	slices.Sort(ca)
	slices.Sort(cb)
	return slices.Equal(ca, cb)
}

// restore loads rules atomically, table by table.
func (h *Host) restore(ctx context.Context, input string) error {
	_, err := run.Cmd{
		NS: h.ns, Name: h.tables.restore, Args: []string{"--noflush", "--wait"},
		Env: h.environ(), Stdin: strings.NewReader(input),
	}.Output(ctx)
	return err
}
