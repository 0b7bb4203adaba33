package netfilter

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// natTarget reads a target of table nat (linux net/netfilter/xt_nat.c,
// xt_MASQUERADE.c, xt_REDIRECT.c, xt_NETMAP.c).
func (o *options) natTarget() func(w *way) (*NAT, error) {
	n := NAT{Random: o.plainFlag("--random"), RandomFully: o.plainFlag("--random-fully"), Persistent: o.plainFlag("--persistent")}
	switch o.name {
	case "NETMAP":
		return o.netmap()
	case "DNAT":
		n.Kind = DNAT
		s, _ := o.value("--to-destination")
		o.addresses(&n, s)
	case "SNAT":
		n.Kind, n.Source = SNAT, true
		s, _ := o.value("--to-source")
		o.addresses(&n, s)
	default:
		n.Kind = Redirect
		if o.name == "MASQUERADE" {
			n.Kind, n.Source = Masquerade, true
		}
		if s, ok := o.value("--to-ports"); ok {
			lo, hi := o.portRange(s)
			n.Min, n.Max = netip.AddrPortFrom(netip.Addr{}, lo), netip.AddrPortFrom(netip.Addr{}, hi)
		}
	}
	return func(*way) (*NAT, error) { out := n; return &out, nil }
}

// addresses reads [ADDR[-ADDR]][:PORT[-PORT]].
func (o *options) addresses(n *NAT, s string) {
	addrs, ports, _ := strings.Cut(s, ":")
	var from, to netip.Addr
	if addrs != "" {
		a, b, ranged := strings.Cut(addrs, "-")
		if !ranged {
			b = a
		}
		x, ok1 := parseIPv4(a)
		y, ok2 := parseIPv4(b)
		if !ok1 || !ok2 || x > y {
			o.fail("not an address: %q", s)
		}
		from, to = address(x), address(y)
	}
	var lo, hi uint16
	if ports != "" {
		lo, hi = o.portRange(ports)
	}
	if s == "" {
		o.fail("no address")
	}
	n.Min, n.Max = netip.AddrPortFrom(from, lo), netip.AddrPortFrom(to, hi)
}

// portRange reads PORT[-PORT]. A range with a base port (PORT-PORT/BASE) is not
// understood.
func (o *options) portRange(s string) (lo, hi uint16) {
	a, b, ranged := strings.Cut(s, "-")
	if !ranged {
		b = a
	}
	x, err1 := strconv.ParseUint(a, 10, 16)
	y, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || x > y {
		o.fail("not ports: %q", s)
	}
	return uint16(x), uint16(y)
}

// netmap replaces the network's part of an address: of the source in
// postrouting and input, else of the destination.
func (o *options) netmap() func(w *way) (*NAT, error) {
	s, _ := o.value("--to")
	to, err := parsePrefix(s)
	if err != nil {
		o.fail("%v", err)
	}
	return func(w *way) (*NAT, error) {
		n := &NAT{Kind: Netmap, Source: w.e.q.Hook == "postrouting" || w.e.q.Hook == "input"}
		was := w.view.dst
		if n.Source {
			was = w.view.src
		}
		n.Min = netip.AddrPortFrom(address(was&^to.mask|to.addr), 0)
		n.Max = n.Min
		return n, nil
	}
}

// String is "dnat to 10.244.1.2:80", "masquerade", …
func (n NAT) String() string {
	var b strings.Builder
	b.WriteString(string(n.Kind))
	sep := " to "
	if n.Min.Addr().IsValid() {
		b.WriteString(sep + n.Min.Addr().String())
		if n.Max.Addr() != n.Min.Addr() {
			b.WriteString("-" + n.Max.Addr().String())
		}
		sep = ":"
	}
	if n.Min.Port() != 0 {
		if sep == " to " {
			sep = " to port "
		}
		fmt.Fprintf(&b, "%s%d", sep, n.Min.Port())
		if n.Max.Port() != n.Min.Port() {
			fmt.Fprintf(&b, "-%d", n.Max.Port())
		}
	}
	return b.String()
}
