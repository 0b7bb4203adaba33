package trace

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// word is one word of an edit with the column that it begins at, from 1.
type word struct {
	text   string
	column int
	quoted bool
}

// words reads an edit from left to right.
type words struct {
	all  []word
	next int
	end  int // column behind the last character
}

// splitWords splits as a shell does: at blanks, with quotes.
func splitWords(s string) (*words, error) {
	w := &words{end: len(s) + 1}
	var b strings.Builder
	start, quote := -1, byte(0)
	quoted := false
	flush := func() {
		if start >= 0 {
			w.all = append(w.all, word{text: b.String(), column: start + 1, quoted: quoted})
		}
		start, quoted = -1, false
		b.Reset()
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, quoted = c, true
			if start < 0 {
				start = i
			}
		case quote == 0 && (c == ' ' || c == '\t'):
			flush()
		default:
			if start < 0 {
				start = i
			}
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("column %d: the quote does not end", start+1)
	}
	flush()
	return w, nil
}

// more reports whether a word is left.
func (w *words) more() bool { return w.next < len(w.all) }

// peek is the next word, empty at the end.
func (w *words) peek() string {
	if !w.more() {
		return ""
	}
	return w.all[w.next].text
}

// bad is the error of the next word, which is not what was expected.
func (w *words) bad(expected string) error {
	if !w.more() {
		return fmt.Errorf("column %d: expected %s, but there is no more", w.end, expected)
	}
	return fmt.Errorf("column %d: %q: expected %s", w.all[w.next].column, w.all[w.next].text, expected)
}

// take reads a word, whatever it is.
func (w *words) take(expected string) (string, error) {
	if !w.more() {
		return "", w.bad(expected)
	}
	w.next++
	return w.all[w.next-1].text, nil
}

// is reads the next word if it is s.
func (w *words) is(s string) bool {
	if w.peek() != s {
		return false
	}
	w.next++
	return true
}

// choose reads one of some words.
func (w *words) choose(of ...string) (string, error) {
	for _, s := range of {
		if w.is(s) {
			return s, nil
		}
	}
	return "", w.bad(list(of))
}

// done is an error if a word is left.
func (w *words) done() error {
	if w.more() {
		return w.bad("no more")
	}
	return nil
}

// list is "a, b or c".
func list(of []string) string {
	if len(of) < 2 {
		return strings.Join(of, "")
	}
	return strings.Join(of[:len(of)-1], ", ") + " or " + of[len(of)-1]
}

// optionalPlace reads a NODE where it may be left out: unless the next word is
// what comes after it.
func (w *words) optionalPlace(after func(string) bool) (string, error) {
	if !w.more() || after(w.peek()) {
		return everyNode, nil
	}
	return w.take("a node")
}

// address reads an IPv4 address.
func (w *words) address() (netip.Addr, error) {
	a, err := netip.ParseAddr(w.peek())
	if err != nil || !a.Is4() {
		return netip.Addr{}, w.bad("an IPv4 address")
	}
	w.next++
	return a, nil
}

// prefix reads a route's destination as `ip route` does.
func (w *words) prefix() (netip.Prefix, error) {
	p, ok := parsePrefix(w.peek())
	if !ok {
		return netip.Prefix{}, w.bad(`a prefix such as 10.244.2.0/24, an address, or "default"`)
	}
	w.next++
	return p, nil
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if s == "default" {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), a.Is4()
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p.Addr().Is4() && p == p.Masked()
}

// number reads a number in a range.
func (w *words) number(what string, least, most int) (int, error) {
	n, err := strconv.Atoi(w.peek())
	if err != nil || n < least || n > most {
		return 0, w.bad(fmt.Sprintf("%s, %d to %d", what, least, most))
	}
	w.next++
	return n, nil
}

// parseEdit reads one edit.
func parseEdit(text string) (Edit, error) {
	w, err := splitWords(text)
	if err != nil {
		return Edit{}, err
	}
	var e Edit
	verb, err := w.choose("node", "link", "segment", "mtu", "sysctl", "add", "delete", "rule")
	if err != nil {
		return Edit{}, err
	}
	switch verb {
	case "node":
		e, err = parseNode(w)
	case "link":
		e, err = parseLink(w)
	case "segment":
		e, err = parseSegment(w)
	case "mtu":
		e, err = parseMTU(w)
	case "sysctl":
		e, err = parseSysctl(w)
	case "add":
		e, err = parseAdd(w)
	case "delete":
		e, err = parseDelete(w)
	case "rule":
		e, err = parseRuleEdit(w)
	}
	if err == nil {
		err = w.done()
	}
	e.text = text
	return e, err
}

// parseAdd reads what comes after "add".
func parseAdd(w *words) (Edit, error) {
	if _, err := w.choose("route"); err != nil {
		return Edit{}, err
	}
	return parseAddRoute(w)
}

// parseDelete reads what comes after "delete".
func parseDelete(w *words) (Edit, error) {
	what, err := w.choose("route", "neighbor", "fdb", "endpoint", "service", "pod")
	if err != nil {
		return Edit{}, err
	}
	switch what {
	case "route":
		return parseDeleteRoute(w)
	case "neighbor":
		return parseDeleteNeighbor(w)
	case "fdb":
		return parseDeleteFDB(w)
	case "endpoint":
		return parseDeleteEndpoint(w)
	case "service":
		return parseDeleteService(w)
	default:
		return parseDeletePod(w)
	}
}

// isMAC reports whether s is an Ethernet address; package net, which parses
// them too, reaches for the kernel and has no place here.
func isMAC(s string) bool {
	bytes := strings.Split(s, ":")
	for _, b := range bytes {
		if _, err := strconv.ParseUint(b, 16, 8); err != nil || len(b) != 2 {
			return false
		}
	}
	return len(bytes) == 6
}
