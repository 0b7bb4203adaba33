package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"slipway/datapath"
)

// Routing tables that every namespace has (linux include/uapi/linux/rtnetlink.h).
const (
	tableLocal   = 255
	tableMain    = 254
	tableDefault = 253
)

// defaultPolicy are the rules of a namespace in which nobody changed them
// (linux net/ipv4/fib_rules.c, fib_default_rules_init).
var defaultPolicy = []datapath.PolicyRule{
	{Priority: 0, Action: "lookup", Table: tableLocal, Text: "0: from all lookup local"},
	{Priority: 32766, Action: "lookup", Table: tableMain, Text: "32766: from all lookup main"},
	{Priority: 32767, Action: "lookup", Table: tableDefault, Text: "32767: from all lookup default"},
}

// tableMerged is the trie that tables local and main share as long as nobody
// changed the rules, so that the longest prefix of both wins (net/ipv4/fib_trie.c,
// fib_trie_table; unmerged by fib_unmerge).
const tableMerged = -1

var mergedPolicy = []datapath.PolicyRule{
	{Action: "lookup", Table: tableMerged},
	{Action: "lookup", Table: tableDefault},
}

// loopbackIIf is the input device of what a namespace sends itself
// (linux include/net/flow.h, LOOPBACK_IFINDEX).
const loopbackIIf = "lo"

// flow is what a route is looked up by (struct flowi4). An invalid source is
// one that is not chosen yet.
type flow struct {
	dst, src netip.Addr
	mark     uint32
	iif, oif string
}

// fib is a namespace's routing tables, ready for longest-prefix matches.
type fib struct {
	policy []datapath.PolicyRule
	custom bool // the rules are not the default ones
	// foreign: table local has routes that the kernel did not put there.
	foreign bool
	tables  map[int]*fibTable
}

type fibTable struct {
	bits   []int // prefix lengths in use, longest first
	routes map[netip.Prefix][]*datapath.FIBRoute
}

func newFIB(st *datapath.NetState) *fib {
	f := &fib{policy: slices.Clone(st.Policy), tables: map[int]*fibTable{}}
	if len(f.policy) == 0 {
		f.policy = defaultPolicy
	}
	slices.SortStableFunc(f.policy, func(a, b datapath.PolicyRule) int { return a.Priority - b.Priority })
	f.custom = !slices.EqualFunc(f.policy, defaultPolicy, func(a, b datapath.PolicyRule) bool {
		return a.Priority == b.Priority && a.Table == b.Table && a.Action == b.Action && !a.Src.IsValid() && !a.Dst.IsValid()
	})
	if !f.custom {
		f.policy = mergedPolicy
	}
	for i := range st.Routes {
		r := &st.Routes[i]
		if !r.Dst.IsValid() || !r.Dst.Addr().Is4() {
			continue
		}
		f.table(r.Table).add(r)
		if !f.custom && (r.Table == tableLocal || r.Table == tableMain) {
			f.table(tableMerged).add(r)
		}
		f.foreign = f.foreign || r.Table == tableLocal && r.Type == "local" && r.Protocol != datapath.ProtoKernel && r.Protocol != 0
	}
	for _, t := range f.tables {
		t.sort()
	}
	return f
}

func (f *fib) table(id int) *fibTable {
	t := f.tables[id]
	if t == nil {
		t = &fibTable{routes: map[netip.Prefix][]*datapath.FIBRoute{}}
		f.tables[id] = t
	}
	return t
}

func (t *fibTable) add(r *datapath.FIBRoute) {
	p := r.Dst.Masked()
	t.routes[p] = append(t.routes[p], r)
	if !slices.Contains(t.bits, p.Bits()) {
		t.bits = append(t.bits, p.Bits())
	}
}

// sort puts routes to one destination in the order in which the kernel tries
// them: table local before main, the more particular TOS, then the lower metric
// (net/ipv4/fib_trie.c, fib_find_alias).
func (t *fibTable) sort() {
	slices.SortFunc(t.bits, func(a, b int) int { return b - a })
	for _, rs := range t.routes {
		slices.SortStableFunc(rs, func(a, b *datapath.FIBRoute) int {
			return cmp.Or(cmp.Compare(b.Table, a.Table), cmp.Compare(b.TOS, a.TOS), cmp.Compare(a.Priority, b.Priority))
		})
	}
}

// fibResult is the route that a lookup found.
type fibResult struct {
	rule  *datapath.PolicyRule
	route *datapath.FIBRoute
	legs  []datapath.NextHop // that are alive and fit; one unless it is multipath
}

// lookup goes through the policy rules until a table has a route
// (net/core/fib_rules.c, fib_rules_lookup; net/ipv4/fib_rules.c, __fib_lookup).
func (f *fib) lookup(q flow) (fibResult, *fault) {
	for i := range f.policy {
		r := &f.policy[i]
		switch match := r.Action != "nop" && ruleMatches(r, q); {
		case !match:
			continue
		case r.Other != "" || r.Action == "goto":
			return fibResult{}, unknownFault(tableName(r.Table), r.Text, "the policy rule %q cannot be evaluated", r.Text)
		case r.Action != "lookup":
			return fibResult{}, policyFault(r, q.dst)
		}
		res, flt, ok := f.inTable(r, q)
		if ok || flt != nil {
			return res, flt
		}
	}
	return fibResult{}, noRoute(f, q)
}

// ruleMatches is fib_rule_match and fib4_rule_match. Selectors that are not
// understood are taken to match, since the rule's effect is then unknown.
func ruleMatches(r *datapath.PolicyRule, q flow) bool {
	mask := r.Mask
	if mask == 0 && r.Mark != 0 {
		mask = ^uint32(0)
	}
	match := (r.IIf == "" || r.IIf == q.iif) &&
		(r.OIf == "" || r.OIf == q.oif) &&
		(q.mark^r.Mark)&mask == 0 &&
		covers(r.Src, q.src) && covers(r.Dst, q.dst)
	return match != r.Invert || r.Invert && r.Other != ""
}

// covers reports whether a selector's prefix holds an address; one that is not
// chosen yet is 0.0.0.0.
func covers(p netip.Prefix, a netip.Addr) bool {
	if !p.IsValid() || p.Bits() == 0 {
		return true
	}
	return a.IsValid() && p.Contains(a)
}

// inTable is fib_table_lookup (net/ipv4/fib_trie.c): longest prefix first, and
// what is dead or leads elsewhere than asked is passed over.
func (f *fib) inTable(rule *datapath.PolicyRule, q flow) (res fibResult, flt *fault, ok bool) {
	t := f.tables[rule.Table]
	if t == nil {
		return fibResult{}, nil, false
	}
	for _, bits := range t.bits {
		p, err := q.dst.Prefix(bits)
		if err != nil {
			continue
		}
		for _, r := range t.routes[p] {
			switch {
			case r.TOS != 0 || r.Dead:
				continue
			case r.Type == "throw":
				return fibResult{}, nil, false
			}
			if flt := typeFault(r); flt != nil {
				return fibResult{}, flt, true
			}
			if legs := liveLegs(r, q.oif); len(legs) > 0 {
				return fibResult{rule: rule, route: r, legs: legs}, nil, true
			}
		}
	}
	return fibResult{}, nil, false
}

func liveLegs(r *datapath.FIBRoute, oif string) []datapath.NextHop {
	legs := r.NextHops
	if len(legs) == 0 {
		legs = []datapath.NextHop{{Via: r.Via, Dev: r.Dev, Weight: 1, Onlink: r.Onlink}}
	}
	var out []datapath.NextHop
	for _, l := range legs {
		if !l.Dead && (oif == "" || oif == l.Dev) {
			out = append(out, l)
		}
	}
	return out
}

// tableName is a table's name as `ip` writes it.
func tableName(id int) string {
	switch id {
	case tableLocal:
		return "local"
	case tableMain, 0:
		return "main"
	case tableDefault:
		return "default"
	}
	return strconv.Itoa(id)
}

// kind is the type of the route found.
func (r fibResult) kind() string {
	if r.route.Type == "" {
		return "unicast"
	}
	return r.route.Type
}

// text is the route as `ip route` prints it.
func (r fibResult) text() string {
	if r.route.Text != "" {
		return r.route.Text
	}
	s := r.route.Dst.String()
	if r.kind() != "unicast" {
		s = r.kind() + " " + s
	}
	if r.route.Via.IsValid() {
		s += " via " + r.route.Via.String()
	}
	if r.route.Dev != "" {
		s += " dev " + r.route.Dev
	}
	if r.route.Src.IsValid() {
		s += " src " + r.route.Src.String()
	}
	if r.route.Onlink {
		s += " onlink"
	}
	if n := len(r.route.NextHops); n > 0 {
		s += fmt.Sprintf(" (%d next hops)", n)
	}
	return s
}
