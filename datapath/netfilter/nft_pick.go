package netfilter

import (
	"net/netip"
	"strings"

	"slipway/datapath/nft"
)

// picked is one of the things between which a map or chance chooses.
type picked struct {
	chance float64
	target target
}

// pick does what a map leads to: one thing by the packet, or each of several
// with its chance. What is in no map goes on to the next rule.
func (w *way) pick(r *rule, t *target, n int) (done bool) {
	if t.change != nil {
		t.change(w)
	}
	list, why := t.pick(w)
	if why != "" {
		w.giveUpAt(r, n, why)
		return true
	}
	if len(list) == 0 {
		return false
	}
	last := len(list) - 1
	for i := range list[:last] {
		f := w.fork()
		f.left *= list[i].chance
		if !f.do(r, &list[i].target, n, list[i].chance) {
			f.run()
		}
	}
	own := 0.0 // nothing was left to chance
	if last > 0 {
		own = list[last].chance
	}
	w.left *= list[last].chance
	return w.do(r, &list[last].target, n, own)
}

// pickVerdict chooses a verdict.
func (t *table) pickVerdict(m *nft.Map) func(w *way) ([]picked, string) {
	if m.Random > 0 {
		return t.byChance(m, func(value string) (target, string) {
			v, ok := nft.ParseVerdict(value)
			if !ok {
				return target{}, "verdict " + value + " is not understood"
			}
			return t.verdict(v)
		})
	}
	in, why := t.mapOf(m)
	return func(w *way) ([]picked, string) {
		if why != "" {
			return nil, why
		}
		value, found, why := in.find(w, m.Fields)
		if why != "" || !found {
			return nil, why
		}
		v, ok := nft.ParseVerdict(value)
		if !ok {
			return nil, "verdict " + value + " is not understood"
		}
		to, why := t.verdict(v)
		return []picked{{1, to}}, why
	}
}

// byChance chooses by numgen random: each number below the modulus is equally
// likely, and one that is in no pair leads nowhere.
func (t *table) byChance(m *nft.Map, make func(value string) (target, string)) func(w *way) ([]picked, string) {
	var list []picked
	why := ""
	for _, p := range m.Pairs {
		to, bad := make(p.Value)
		if bad != "" {
			why = bad
		}
		list = append(list, picked{1 / float64(m.Random), to})
	}
	if m.Name != "" || len(m.Pairs) != m.Random {
		why = "not every number leads somewhere"
	}
	return func(*way) ([]picked, string) { return list, why }
}

// nat makes the target of a translation.
func (c *nftCompiler) nat(n *nft.NAT) {
	t := &c.body.target
	c.ended = true
	if n.Map != nil {
		t.pick = c.table.byChance(n.Map, func(value string) (target, string) {
			to, why := newNAT(n, strings.ReplaceAll(value, " . ", ":"))
			return natTo(to), why
		})
		return
	}
	to, why := newNAT(n, n.To)
	if why != "" {
		c.baffle("%s", why)
		return
	}
	change := t.change
	*t = natTo(to)
	t.change = change
}

func natTo(n NAT) target {
	return target{kind: decides, outcome: Outcome{Verdict: Accept}, nat: func(*way) (*NAT, error) { out := n; return &out, nil }}
}

var natKinds = map[string]NATKind{"dnat": DNAT, "snat": SNAT, "masquerade": Masquerade, "redirect": Redirect}

// newNAT reads where a translation leads to.
func newNAT(n *nft.NAT, to string) (out NAT, why string) {
	out.Kind = natKinds[n.Kind]
	out.Source = out.Kind == SNAT || out.Kind == Masquerade
	for _, f := range n.Flags {
		out.Random, out.RandomFully, out.Persistent = out.Random || f == "random", out.RandomFully || f == "fully-random", out.Persistent || f == "persistent"
	}
	if to == "" {
		return out, ""
	}
	if strings.HasPrefix(to, ":") {
		to = "0.0.0.0" + to
	}
	ap, err := netip.ParseAddrPort(to)
	if err != nil {
		a, err := netip.ParseAddr(to)
		if err != nil {
			return out, "where " + to + " leads is not understood"
		}
		ap = netip.AddrPortFrom(a, 0)
	}
	if ap.Addr().IsUnspecified() {
		ap = netip.AddrPortFrom(netip.Addr{}, ap.Port())
	}
	out.Min, out.Max = ap, ap
	return out, ""
}

// remember adds an address to a set of clients.
func (t *table) remember(u *nft.Update) func(w *way) string {
	return func(w *way) string {
		a := address(w.view.src)
		if u.Field.Name == "ip daddr" {
			a = address(w.view.dst)
		}
		w.remembered = append(w.remembered, Remembered{List: u.Set, Address: a})
		return "remember " + a.String()
	}
}
