package kubeproxy

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// SaveForm spells a rule as iptables-save prints it once it is loaded: header
// first, every default named, marks and probabilities as the kernel keeps them.
// It is an error if the rule holds anything whose printed form is not known.
func SaveForm(rule string) (string, error) {
	return saveForm(new(ruleParser), rule)
}

// saveForm is SaveForm with a parser that may have been used before.
func saveForm(p *ruleParser, rule string) (string, error) {
	chain, r, err := p.parse(rule)
	if err != nil {
		return "", fmt.Errorf("save form: %w", err)
	}
	b := make([]byte, 0, len(rule)+32)
	b = append(append(b, "-A "...), chain...)
	if b, err = appendHeader(b, r.Header); err != nil {
		return "", fmt.Errorf("save form of %q: %w", rule, err)
	}
	for _, m := range r.Matches {
		if !m.Known {
			return "", fmt.Errorf("save form of %q: match %q is not known", rule, m.Name)
		}
		b = append(append(b, " -m "...), m.Name...)
		if b, err = appendOptions(b, matchForms[m.Name], m.Options); err != nil {
			return "", fmt.Errorf("save form of %q: match %s: %w", rule, m.Name, err)
		}
	}
	if r.Target.Name == "" {
		return string(b), nil
	}
	verb := " -j "
	if r.Target.Goto {
		verb = " -g "
	}
	b = append(append(b, verb...), r.Target.Name...)
	if b, err = appendTarget(b, r.Target); err != nil {
		return "", fmt.Errorf("save form of %q: target %s: %w", rule, r.Target.Name, err)
	}
	return string(b), nil
}

// optionForm is how iptables-save prints one option of an extension.
type optionForm struct {
	name    string
	implied string                                 // printed with this value when absent
	bare    bool                                   // has no value
	always  bool                                   // bare, and printed when absent too
	spell   func(value string) (s string, e error) // nil: as it is
}

// matchForms are the matches known here, with their options in the order in
// which iptables-save prints them (iptables extensions/libxt_*.c, *_save).
var matchForms = map[string][]optionForm{
	"comment":   {{name: "--comment", spell: quoteText}},
	"tcp":       {{name: "--sport"}, {name: "--dport"}},
	"udp":       {{name: "--sport"}, {name: "--dport"}},
	"sctp":      {{name: "--sport"}, {name: "--dport"}},
	"conntrack": {{name: "--ctstate", spell: spellStates}},
	"mark":      {{name: "--mark", spell: spellMark}},
	"statistic": {{name: "--mode"}, {name: "--probability", spell: spellProbability}},
	"recent": {
		{name: "--set", bare: true}, {name: "--rcheck", bare: true}, {name: "--seconds"}, {name: "--reap", bare: true},
		{name: "--name", implied: "DEFAULT"}, {name: "--mask", implied: "255.255.255.255"}, {name: "--rsource", bare: true, always: true},
	},
	"addrtype": {{name: "--src-type"}, {name: "--dst-type"}},
	"nfacct":   {{name: "--nfacct-name", spell: spellAccount}},
}

// targetForms are the same for targets. MARK has one form for five spellings.
var targetForms = map[string][]optionForm{
	"ACCEPT":     nil,
	"DROP":       nil,
	"RETURN":     nil,
	"REJECT":     {{name: "--reject-with", implied: "icmp-port-unreachable"}},
	"DNAT":       {{name: "--to-destination"}},
	"MASQUERADE": {{name: "--random-fully", bare: true}},
	"MARK":       {{name: "--set-xmark"}, {name: "--xor-mark"}, {name: "--or-mark"}},
}

// knownOptions reports whether the extension and all the options are in forms.
func knownOptions(forms map[string][]optionForm, name string, options []Option) bool {
	list, ok := forms[name]
	for _, o := range options {
		ok = ok && hasForm(list, o)
	}
	return ok
}

func hasForm(list []optionForm, o Option) bool {
	for _, f := range list {
		if f.name == o.Name {
			return f.bare && len(o.Values) == 0 || !f.bare && len(o.Values) == 1
		}
	}
	return false
}

func appendHeader(b []byte, header []Option) ([]byte, error) {
	for _, name := range [...]string{"-s", "-d", "-i", "-o", "-p", "-f"} {
		o, ok := find(header, name)
		if !ok {
			continue
		}
		value := o.Value()
		if name == "-s" || name == "-d" {
			var err error
			if value, err = spellPrefix(value); err != nil {
				return nil, err
			}
			if value == "0.0.0.0/0" && !o.Not {
				continue
			}
		}
		b = appendOption(b, o.Not, name, value)
	}
	return b, nil
}

func appendOptions(b []byte, forms []optionForm, options []Option) ([]byte, error) {
	for _, f := range forms {
		o, ok := find(options, f.name)
		switch {
		case ok:
			value := o.Value()
			if f.spell != nil {
				var err error
				if value, err = f.spell(value); err != nil {
					return nil, fmt.Errorf("%s: %w", f.name, err)
				}
			}
			b = appendOption(b, o.Not, f.name, value)
		case f.implied != "" || f.always:
			b = appendOption(b, false, f.name, f.implied)
		}
	}
	return b, nil
}

func appendOption(b []byte, not bool, name, value string) []byte {
	if not {
		b = append(b, " !"...)
	}
	b = append(append(b, ' '), name...)
	if value != "" {
		b = append(append(b, ' '), value...)
	}
	return b
}

func appendTarget(b []byte, t Target) ([]byte, error) {
	switch {
	case t.Name == "MARK":
		return appendMark(b, t)
	case t.Known:
		return appendOptions(b, targetForms[t.Name], t.Options)
	case len(t.Options) == 0:
		return b, nil // a chain
	default:
		return nil, fmt.Errorf("option %s is not known", t.Options[0].Name)
	}
}

// appendMark spells what MARK does as value and mask: the mask's bits are
// cleared, then the value's are flipped (libxt_MARK.c, mark_tg_parse).
func appendMark(b []byte, t Target) ([]byte, error) {
	if !t.Known || len(t.Options) != 1 {
		return nil, fmt.Errorf("%d options, or unknown ones", len(t.Options))
	}
	o := t.Options[0]
	value, mask, err := parseMark(o.Value())
	if err != nil {
		return nil, err
	}
	switch o.Name {
	case "--xor-mark":
		mask = 0
	case "--or-mark":
		mask = value
	}
	return fmt.Appendf(b, " --set-xmark 0x%x/0x%x", value, mask), nil
}

func parseMark(s string) (value, mask uint32, err error) {
	v, m, masked := strings.Cut(s, "/")
	n, err := strconv.ParseUint(v, 0, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("mark %q: %w", s, err)
	}
	if !masked {
		return uint32(n), math.MaxUint32, nil
	}
	k, err := strconv.ParseUint(m, 0, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("mark %q: %w", s, err)
	}
	return uint32(n), uint32(k), nil
}

func spellMark(s string) (string, error) {
	value, mask, err := parseMark(s)
	if err != nil || mask == math.MaxUint32 {
		return fmt.Sprintf("0x%x", value), err
	}
	return fmt.Sprintf("0x%x/0x%x", value, mask), nil
}

func spellPrefix(s string) (string, error) {
	if !strings.Contains(s, "/") {
		s += "/32"
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return "", fmt.Errorf("address: %w", err)
	}
	return p.Masked().String(), nil
}

// spellProbability rounds to the kernel's 31 bits (libxt_statistic.c).
func spellProbability(s string) (string, error) {
	const scale = 1 << 31
	p, err := strconv.ParseFloat(s, 64)
	if err != nil || p < 0 || p > 1 {
		return "", fmt.Errorf("not a probability: %q", s)
	}
	return strconv.FormatFloat(math.Round(p*scale)/scale, 'f', 11, 64), nil
}

// stateOrder is the order in which libxt_conntrack.c prints states.
var stateOrder = [...]string{"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"}

func spellStates(s string) (string, error) {
	given := strings.Split(s, ",")
	var out []string
	for _, known := range stateOrder {
		for _, g := range given {
			if g == known {
				out = append(out, g)
				break
			}
		}
	}
	if len(out) != len(given) {
		return "", fmt.Errorf("states %q: unknown or double", s)
	}
	return strings.Join(out, ","), nil
}

// spellAccount: libxt_nfacct.c prints two blanks before the name.
func spellAccount(s string) (string, error) { return " " + s, nil }

const plainText = "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`)

// quoteText quotes what libxtables' xtables_save_string does.
func quoteText(s string) (string, error) {
	if s != "" && strings.Trim(s, plainText) == "" {
		return s, nil
	}
	return `"` + escape.Replace(s) + `"`, nil
}
