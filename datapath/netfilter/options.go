package netfilter

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"slipway/datapath/kubeproxy"
)

// options are an extension's options while they are read. What goes wrong is
// kept for finish, which also says what nobody asked for.
type options struct {
	of   string
	name string // of the extension
	list []kubeproxy.Option
	seen []bool
	errs []error
}

func (o *options) find(name string, values int) (kubeproxy.Option, bool) {
	for i, x := range o.list {
		if x.Name != name || o.seen[i] {
			continue
		}
		o.seen[i] = true
		if len(x.Values) != values {
			o.fail("%s has %d values", name, len(x.Values))
			return kubeproxy.Option{}, false
		}
		return x, true
	}
	return kubeproxy.Option{}, false
}

func (o *options) fail(format string, args ...any) {
	o.errs = append(o.errs, fmt.Errorf(format, args...))
}

// value is an option with one value that cannot be negated.
func (o *options) value(name string) (string, bool) {
	v, not, ok := o.negatable(name)
	if not {
		o.fail("! %s is not understood", name)
	}
	return v, ok
}

func (o *options) negatable(name string) (value string, not, ok bool) {
	x, ok := o.find(name, 1)
	return x.Value(), x.Not, ok
}

// flag is an option without a value; not is a "!" before it.
func (o *options) flag(name string) (set, not bool) {
	x, ok := o.find(name, 0)
	return ok, x.Not
}

// plainFlag is a flag that cannot be negated.
func (o *options) plainFlag(name string) bool {
	set, not := o.flag(name)
	if not {
		o.fail("! %s is not understood", name)
	}
	return set
}

// number is a value of an option, decimal, octal or hexadecimal.
func (o *options) number(name string) (n uint32, ok bool) {
	v, ok := o.value(name)
	if !ok {
		return 0, false
	}
	return o.parse(v), true
}

func (o *options) parse(s string) uint32 {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		o.fail("not a number: %q", s)
	}
	return uint32(n)
}

// masked reads VALUE[/MASK].
func (o *options) masked(s string) (value, mask uint32, hasMask bool) {
	v, m, ok := strings.Cut(s, "/")
	if !ok {
		return o.parse(v), math.MaxUint32, false
	}
	return o.parse(v), o.parse(m), true
}

func (o *options) finish() error {
	for i, x := range o.list {
		if !o.seen[i] {
			o.fail("option %s is not understood", x.Name)
		}
	}
	if err := errors.Join(o.errs...); err != nil {
		return fmt.Errorf("%s: %s", o.of, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

// span is a range of numbers, both ends included.
type span struct {
	min, max uint32
	not      bool
}

func (s span) has(n uint32) bool { return n >= s.min && n <= s.max }

func (s span) match(n uint32) bool { return s.has(n) != s.not }

// spanOf reads "A", "A:B", ":B" and "A:" with numbers up to most.
func (o *options) spanOf(s string, most uint32) span {
	from, to, ranged := strings.Cut(s, ":")
	out := span{max: most}
	if from != "" {
		out.min = o.parse(from)
	}
	switch {
	case !ranged:
		out.max = out.min
	case to != "":
		out.max = o.parse(to)
	}
	if s == "" || out.max > most {
		o.fail("not a range: %q", s)
	}
	return out
}

// spanOption reads a range that an option has; without it, everything is in it.
func (o *options) spanOption(name string, most uint32) span {
	v, not, ok := o.negatable(name)
	if !ok {
		return span{max: most}
	}
	s := o.spanOf(v, most)
	s.not = not
	return s
}
