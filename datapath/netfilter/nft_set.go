package netfilter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"slipway/datapath"
	"slipway/datapath/nft"
)

// set is a set or a map, ready to be asked once it has been asked.
type set struct {
	of    *datapath.NFSet
	once  sync.Once
	exact map[string]string // value by key, of keys without ranges
	wide  []wideElement     // of those with
}

// wideElement has an interval in its key.
type wideElement struct {
	parts []interval
	value string
}

// interval is of numbers or addresses, both ends inclusive, or one text.
type interval struct {
	from, to uint64
	text     string
}

func (t *table) setOf(name string) (*set, string) {
	if s := t.sets[name]; s != nil {
		return s, ""
	}
	return nil, "set " + name + " is not listed"
}

// mapOf is a named map, or one that stands in the rule.
func (t *table) mapOf(m *nft.Map) (*set, string) {
	if m.Name != "" {
		return t.setOf(m.Name)
	}
	keys, values := make([]string, len(m.Pairs)), make([]string, len(m.Pairs))
	for i, p := range m.Pairs {
		keys[i], values[i] = p.Key, p.Value
	}
	s := newSet(keys)
	for i := range s.of.Elements {
		s.of.Elements[i].Value = values[i]
	}
	return s, ""
}

// newSet is a set that stands in a rule.
func newSet(keys []string) *set {
	s := &set{of: &datapath.NFSet{}}
	for _, k := range keys {
		s.of.Elements = append(s.of.Elements, datapath.NFElement{Key: k})
	}
	return s
}

// prepare sorts the elements into those that can be looked up and the others.
func (s *set) prepare() {
	s.exact = make(map[string]string, len(s.of.Elements))
	for _, e := range s.of.Elements {
		var parts []interval
		wide := false
		words := strings.Split(e.Key, " . ")
		for i, w := range words {
			p := newInterval(w)
			wide = wide || p.text == ""
			parts = append(parts, p)
			words[i] = p.text
		}
		if wide {
			s.wide = append(s.wide, wideElement{parts, e.Value})
		} else {
			s.exact[strings.Join(words, " . ")] = e.Value
		}
	}
}

// newInterval reads one part of a key.
func newInterval(w string) interval {
	if n, ok := protocols[w]; ok && w != "all" {
		return interval{text: strconv.Itoa(int(n))}
	}
	if n, err := strconv.ParseUint(w, 0, 32); err == nil {
		return interval{text: strconv.FormatUint(n, 10)}
	}
	if _, err := netip.ParseAddr(w); err == nil {
		return interval{text: w}
	}
	if p, err := netip.ParsePrefix(w); err == nil && p.Addr().Is4() {
		from := uint64(number(p.Masked().Addr()))
		return interval{from: from, to: from | (1<<(32-p.Bits()) - 1)}
	}
	if a, b, ok := strings.Cut(w, "-"); ok {
		from, ok1 := ordinal(a)
		to, ok2 := ordinal(b)
		if ok1 && ok2 {
			return interval{from: from, to: to}
		}
	}
	return interval{text: w}
}

// ordinal is an address or a number as a number.
func ordinal(s string) (uint64, bool) {
	if n, err := strconv.ParseUint(s, 0, 32); err == nil {
		return n, true
	}
	a, ok := parseIPv4(s)
	return uint64(a), ok
}

func (i interval) match(v string) bool {
	if i.text != "" {
		return i.text == v || strings.HasSuffix(i.text, "*") && strings.HasPrefix(v, strings.TrimSuffix(i.text, "*"))
	}
	n, ok := ordinal(v)
	return ok && i.from <= n && n <= i.to
}

// find looks the packet's fields up; why says that what is found is not known.
func (s *set) find(w *way, fields []nft.Field) (value string, found bool, why string) {
	s.once.Do(s.prepare)
	key := make([]string, len(fields))
	for i, f := range fields {
		v, unknown := w.field(f)
		if unknown != "" {
			return "", false, unknown
		}
		key[i] = v
	}
	if slices.Contains(key, anyNumber) {
		return s.findAny(key)
	}
	if value, found = s.exact[strings.Join(key, " . ")]; found {
		return value, true, ""
	}
	for _, e := range s.wide {
		if e.match(key) {
			return e.value, true, ""
		}
	}
	if s.of.Name != "" {
		for _, r := range w.remembered {
			if r.List == s.of.Name && len(key) == 1 && r.Address.String() == key[0] {
				return "", true, ""
			}
		}
	}
	return "", false, ""
}

func (e wideElement) match(key []string) bool {
	if len(e.parts) != len(key) {
		return false
	}
	for i, p := range e.parts {
		if !p.match(key[i]) {
			return false
		}
	}
	return true
}

// findAny looks up a key with a part that may be any number.
func (s *set) findAny(key []string) (value string, found bool, why string) {
	const dontKnow = "the packet's protocol has no ports, and what stands in their place is not known"
	fits := func(parts []interval) bool {
		for i, p := range parts {
			if i < len(key) && key[i] != anyNumber && !p.match(key[i]) {
				return false
			}
		}
		return true
	}
	for k := range s.exact {
		var parts []interval
		for _, w := range strings.Split(k, " . ") {
			parts = append(parts, interval{text: w})
		}
		if fits(parts) {
			return "", false, dontKnow
		}
	}
	for _, e := range s.wide {
		if fits(e.parts) {
			return "", false, dontKnow
		}
	}
	return "", false, ""
}
