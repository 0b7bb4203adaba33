package linux

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// canonical brings a rule into one form, so that a rule as somebody writes it
// and as iptables-save prints it compare equal: header options first and in
// order, masks and defaults written out, marks as --set-xmark, probabilities as
// the 31-bit fraction that the kernel keeps, options sorted within their match.
// The result is for comparison only.
func canonical(rule string) string {
	tokens := splitRule(rule)
	header := map[string]string{}
	var parts []part
	not := ""
	cur := -1 // the match or target that options belong to
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if t == "!" {
			not = "! "
			continue
		}
		switch name := headerName(t); {
		case name != "" && i+1 < len(tokens):
			i++
			header[name] = not + headerValue(name, tokens[i])
		case (t == "-m" || t == "--match") && i+1 < len(tokens):
			i++
			parts = append(parts, part{name: "-m " + tokens[i]})
			cur = len(parts) - 1
		case (t == "-j" || t == "--jump" || t == "-g" || t == "--goto") && i+1 < len(tokens):
			i++
			parts = append(parts, part{name: "-j " + tokens[i]})
			cur = len(parts) - 1
		case t == "--comment" && i+1 < len(tokens) && cur >= 0:
			i++ // whatever it looks like
			parts[cur].options = append(parts[cur].options, t+" "+tokens[i])
		case strings.HasPrefix(t, "-"):
			if cur < 0 {
				parts = append(parts, part{name: "-m " + strings.TrimPrefix(header["-p"], "! ")})
				cur = len(parts) - 1
			}
			var values []string
			for i+1 < len(tokens) && !strings.HasPrefix(tokens[i+1], "-") && tokens[i+1] != "!" {
				i++
				values = append(values, tokens[i])
			}
			parts[cur].options = append(parts[cur].options, not+option(t, values))
		}
		not = ""
	}
	var b strings.Builder
	for _, name := range []string{"-A", "-s", "-d", "-i", "-o", "-p"} {
		if v, ok := header[name]; ok {
			b.WriteString(name + " " + v + " ")
		}
	}
	for _, p := range parts {
		b.WriteString(p.String() + " ")
	}
	return b.String()
}

// part is a match or target with its options.
type part struct {
	name    string
	options []string
}

func (p part) String() string {
	switch {
	case p.name == "-j REJECT" && len(p.options) == 0:
		p.options = []string{"--reject-with icmp-port-unreachable"}
	case p.name == "-m recent":
		p.options = p.recentDefaults()
	}
	slices.Sort(p.options)
	return p.name + " " + strings.Join(p.options, " ")
}

// recentDefaults adds what iptables-save prints without being told
// (iptables extensions/libxt_recent.c).
func (p part) recentDefaults() []string {
	has := func(prefixes ...string) bool {
		return slices.ContainsFunc(p.options, func(o string) bool {
			return slices.ContainsFunc(prefixes, func(x string) bool { return strings.HasPrefix(o, x) })
		})
	}
	out := p.options
	if !has("--mask") {
		out = append(out, "--mask 255.255.255.255")
	}
	if !has("--rsource", "--rdest") {
		out = append(out, "--rsource")
	}
	return out
}

// headerName is the short name of an option that stands before all matches.
func headerName(t string) string {
	switch t {
	case "-A", "-s", "-d", "-i", "-o", "-p":
		return t
	case "--source", "--src":
		return "-s"
	case "--destination", "--dst":
		return "-d"
	case "--in-interface":
		return "-i"
	case "--out-interface":
		return "-o"
	case "--protocol":
		return "-p"
	default:
		return ""
	}
}

func headerValue(name, v string) string {
	switch name {
	case "-s", "-d":
		if a, err := netip.ParseAddr(v); err == nil {
			return netip.PrefixFrom(a, a.BitLen()).String()
		}
		if p, err := netip.ParsePrefix(v); err == nil {
			return p.Masked().String()
		}
	case "-p":
		return strings.ToLower(v)
	}
	return v
}

// option brings an option with its values into one form.
func option(name string, values []string) string {
	v := strings.Join(values, " ")
	switch name {
	case "--set-mark", "--set-xmark":
		return "--set-xmark " + mark(v, 0xffffffff)
	case "--or-mark":
		return "--set-xmark " + mark(v+"/"+v, 0)
	case "--xor-mark":
		return "--set-xmark " + mark(v+"/0", 0)
	case "--and-mark":
		if n, err := strconv.ParseUint(v, 0, 32); err == nil {
			return "--set-xmark " + mark("0/"+strconv.FormatUint(^n&0xffffffff, 10), 0)
		}
	case "--mark":
		return "--mark " + mark(v, 0xffffffff)
	case "--probability":
		if f, err := strconv.ParseFloat(v, 64); err == nil {
			// iptables extensions/libxt_statistic.c, XT_OPT probability.
			return "--probability " + strconv.FormatInt(int64(math.Round(f*(1<<31))), 10)
		}
	case "--ctstate", "--state":
		states := strings.Split(v, ",")
		slices.Sort(states)
		return name + " " + strings.Join(states, ",")
	}
	if v == "" {
		return name
	}
	return name + " " + v
}

// mark writes "VALUE[/MASK]" in hexadecimal with its mask.
func mark(v string, all uint64) string {
	value, mask, ok := strings.Cut(v, "/")
	n, err := strconv.ParseUint(value, 0, 32)
	if err != nil {
		return v
	}
	m := all
	if ok {
		if m, err = strconv.ParseUint(mask, 0, 32); err != nil {
			return v
		}
	}
	return "0x" + strconv.FormatUint(n, 16) + "/0x" + strconv.FormatUint(m, 16)
}

// target is what a rule jumps to, or empty.
func target(rule string) string {
	tokens := splitRule(rule)
	for i := 0; i+1 < len(tokens); i++ {
		switch tokens[i] {
		case "-j", "-g", "--jump", "--goto":
			return tokens[i+1]
		}
	}
	return ""
}

// splitRule splits a rule into words as iptables-restore does: at blanks,
// except in double quotes, where a backslash takes the next character as it is
// (iptables xshared.c, add_param_to_argv).
func splitRule(rule string) []string {
	var out []string
	var word strings.Builder
	quoted, escaped, any := false, false, false
	for _, c := range rule {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted, any = !quoted, true
		case !quoted && (c == ' ' || c == '\t'):
			if any {
				out = append(out, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(c)
			any = true
		}
	}
	if any {
		out = append(out, word.String())
	}
	return out
}
