package nft

import (
	"net/netip"
	"slices"
	"strings"
)

// Same reports whether two spellings of a rule mean the same: addresses in a set
// are in any order, cut up in any way, and without braces if they are one.
func Same(a, b string) bool { return a == b || canonical(a) == canonical(b) }

func canonical(rule string) string {
	words := strings.Fields(rule)
	out := make([]string, 0, len(words))
	for i := 0; i < len(words); i++ {
		if words[i] != "{" {
			out = append(out, oneSet(words[i:i+1], words[i]))
			continue
		}
		n := slices.Index(words[i:], "}")
		if n < 0 {
			return rule
		}
		inside := words[i+1 : i+n]
		out = append(out, oneSet(slices.DeleteFunc(slices.Clone(inside), func(w string) bool { return w == "," }), strings.Join(words[i:i+n+1], " ")))
		i += n
	}
	return strings.Join(out, " ")
}

// oneSet spells addresses, prefixes and ranges as ranges that are sorted and do
// not touch; anything else as it is.
func oneSet(words []string, asIs string) string {
	spans := make([]span, len(words))
	for i, w := range words {
		var ok bool
		if spans[i], ok = parseSpan(w); !ok {
			return asIs
		}
	}
	if len(spans) == 0 {
		return asIs
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	merged := spans[:1]
	for _, s := range spans[1:] {
		last := &merged[len(merged)-1]
		if next := last.to.Next(); next.IsValid() && next.Less(s.from) {
			merged = append(merged, s)
		} else if last.to.Less(s.to) {
			last.to = s.to
		}
	}
	var b strings.Builder
	for _, s := range merged {
		b.WriteString("[" + s.from.String() + "-" + s.to.String() + "]")
	}
	return b.String()
}

// span is a range of addresses, both inclusive.
type span struct{ from, to netip.Addr }

// parseSpan reads ADDRESS, ADDRESS/BITS and ADDRESS-ADDRESS of IPv4.
func parseSpan(w string) (span, bool) {
	if from, to, ok := strings.Cut(w, "-"); ok {
		a, err1 := netip.ParseAddr(from)
		b, err2 := netip.ParseAddr(to)
		return span{a, b}, err1 == nil && err2 == nil && a.Is4() && b.Is4() && !b.Less(a)
	}
	if a, err := netip.ParseAddr(w); err == nil {
		return span{a, a}, a.Is4()
	}
	p, err := netip.ParsePrefix(w)
	if err != nil || !p.Addr().Is4() {
		return span{}, false
	}
	p = p.Masked()
	last := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return span{p.Addr(), netip.AddrFrom4(last)}, true
}
