package units

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Command is a command line of a unit (systemd.service(5), "Command lines").
type Command struct {
	Argv []string // with $NAME and ${NAME} still in it
	// MayFail: an exit code other than 0 is no failure ("-").
	MayFail bool
}

func parseCommand(v string) (Command, error) {
	var c Command
	for v != "" && strings.ContainsRune("-@:+!", rune(v[0])) {
		if v[0] == '@' {
			return c, errors.New("the prefix @ is not supported")
		}
		c.MayFail = c.MayFail || v[0] == '-'
		v = v[1:] // ":", "+" and "!" are about privileges and expansion, which all have here
	}
	var err error
	c.Argv, err = split(v)
	switch {
	case err != nil:
		return c, err
	case len(c.Argv) == 0:
		return c, errors.New("there is no command")
	case !path.IsAbs(c.Argv[0]):
		return c, fmt.Errorf("%s is not an absolute path", c.Argv[0])
	}
	return c, nil
}

// split takes a line apart at spaces, but not within quotes (systemd.syntax(7),
// "Quoting"). "%%" is a percent sign; other specifiers are refused.
func split(line string) ([]string, error) {
	line = strings.ReplaceAll(line, "\\\n", " ") // a line that goes on
	var out []string
	var word strings.Builder
	var quoted byte
	begun := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quoted != '\'' && i+1 < len(line):
			i++
			word.WriteString(escaped(line[i]))
			begun = true
		case c == '%':
			if i+1 >= len(line) || line[i+1] != '%' {
				return nil, errors.New("specifiers (%x) are not supported; a percent sign is %%")
			}
			i++
			word.WriteByte('%')
			begun = true
		case quoted != 0 && c == quoted:
			quoted = 0
		case quoted == 0 && (c == '"' || c == '\'') && !(begun && word.Len() > 0 && !strings.HasSuffix(word.String(), "=")):
			quoted, begun = c, true
		case quoted == 0 && (c == ' ' || c == '\t' || c == '\n'):
			if begun {
				out = append(out, word.String())
				word.Reset()
				begun = false
			}
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if quoted != 0 {
		return nil, fmt.Errorf("the quote %c is not closed", quoted)
	}
	if begun {
		out = append(out, word.String())
	}
	return out, nil
}

func escaped(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case 't':
		return "\t"
	default:
		return string(c)
	}
}

// Expand replaces variables in a command: ${NAME} within a word by the value,
// $NAME as a word of its own by the value's words.
func (c Command) Expand(lookup func(string) string) []string {
	var out []string
	for i, w := range c.Argv {
		if name, ok := strings.CutPrefix(w, "$"); ok && i > 0 && name != "" && !strings.ContainsAny(name, "${}") {
			out = append(out, strings.Fields(lookup(name))...)
			continue
		}
		out = append(out, expandWord(w, lookup))
	}
	return out
}

func expandWord(w string, lookup func(string) string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(w, "${")
		if !ok {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			break
		}
		b.WriteString(before + lookup(name))
		w = after
	}
	b.WriteString(w)
	return strings.ReplaceAll(b.String(), "$$", "$")
}

// Limit is a resource limit (setrlimit(2)).
type Limit struct {
	Name       string // "NOFILE"
	Soft, Hard uint64
}

// Infinity is no limit (linux include/uapi/linux/resource.h, RLIM64_INFINITY).
const Infinity = ^uint64(0)

func (s *Service) limit(name, v string) error {
	soft, hard, both := strings.Cut(v, ":")
	if !both {
		hard = soft
	}
	l := Limit{Name: name}
	for text, to := range map[string]*uint64{soft: &l.Soft, hard: &l.Hard} {
		if text == "infinity" {
			*to = Infinity
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return errors.New("want a number or infinity")
		}
		*to = n
	}
	if soft == hard {
		l.Hard = max(l.Hard, l.Soft)
		l.Soft = l.Hard
	}
	s.Limits = append(s.Limits, l)
	return nil
}

// ParseEnvironment reads a file of assignments (systemd.exec(5), EnvironmentFile=).
func ParseEnvironment(text string) ([]string, error) {
	var out []string
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("line %d: %q is no assignment", n+1, line)
		}
		value = strings.TrimSpace(value)
		if l := len(value); l >= 2 && (value[0] == '"' || value[0] == '\'') && value[l-1] == value[0] {
			value = value[1 : l-1]
		}
		out = append(out, strings.TrimSpace(name)+"="+value)
	}
	return out, nil
}
