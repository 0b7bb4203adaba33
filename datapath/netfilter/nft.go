package netfilter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/nft"
)

// Stop is a place at a hook where rules are asked: a table of iptables, or a
// base chain of nftables.
type Stop struct {
	// Table is what [Query.Table] has to be: "nat", or "ip kube-proxy nat-prerouting".
	Table    string
	Priority int
	// NAT: it is asked only for a connection's first packet, about its translation.
	NAT bool
	// NFT: it is a base chain of nftables.
	NFT bool
}

// priorities of iptables' tables (linux include/uapi/linux/netfilter_ipv4.h,
// NF_IP_PRI_…); those of nat depend on the hook.
var priorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

const (
	priorityConntrack = -200
	priorityDstNAT    = -100
	prioritySrcNAT    = 100
)

// natPriority is where a hook translates, whatever the priorities of nat chains:
// they only order those chains (linux net/netfilter/nf_nat_proto.c, nf_nat_ipv4_ops).
func natPriority(hook string) int {
	if hook == "prerouting" || hook == "output" {
		return priorityDstNAT
	}
	return prioritySrcNAT
}

// AfterConntrack reports whether packets are tracked before they come here.
func (s Stop) AfterConntrack() bool { return s.Priority > priorityConntrack }

// Stops lists where a packet is asked at a hook, in order. Of stops with one
// priority the kernel asks that first which came last; which is not known here,
// and nftables' are taken for the younger ones, as slipway loads them last.
func (r *Rules) Stops(hook string) []Stop {
	out := slices.Clone(r.nft[hook])
	for _, t := range Order(hook) {
		s := Stop{Table: t, Priority: priorities[t]}
		if t == "nat" {
			s.NAT, s.Priority = true, natPriority(hook)
		}
		out = append(out, s)
	}
	at := func(s Stop) int {
		if s.NAT {
			return natPriority(hook)
		}
		return s.Priority
	}
	slices.SortStableFunc(out, func(a, b Stop) int {
		return cmp.Or(at(a)-at(b), cmp.Compare(boolInt(b.NAT), boolInt(a.NAT)), a.Priority-b.Priority)
	})
	return out
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Has reports whether the stop has rules or a policy of its own.
func (r *Rules) Has(table string) bool { return r.bases[table] != nil || r.tables[table] != nil }

// TracksForNAT reports whether there is a chain or table that translates, which
// has connections tracked.
func (r *Rules) TracksForNAT() bool {
	for _, b := range r.bases {
		if b.stop.NAT {
			return true
		}
	}
	return r.tables["nat"] != nil
}

// Owner is how the stop's table is called: "nat", or "ip kube-proxy".
func (s Stop) Owner() string {
	if !s.NFT {
		return s.Table
	}
	family, rest, _ := strings.Cut(s.Table, " ")
	name, _, _ := strings.Cut(rest, " ")
	return family + " " + name
}

// ParseState is [Parse] of a namespace's state, with nftables' tables of families
// ip and inet.
func ParseState(st *datapath.NetState) (*Rules, error) {
	r, err := Parse(st.RuleSave)
	if err != nil {
		return nil, err
	}
	var tables []datapath.NFTable
	if st.NFTables != "" {
		if tables, err = nft.Read([]byte(st.NFTables)); err != nil {
			return nil, err
		}
	}
	for _, p := range st.NFTPlanned {
		tables = slices.DeleteFunc(tables, func(t datapath.NFTable) bool { return t.Family == p.Family && t.Name == p.Name })
	}
	r.AddNFT(append(tables, st.NFTPlanned...))
	return r, nil
}

// base is a base chain of nftables.
type base struct {
	table *table
	chain *chain
	stop  Stop
}

// AddNFT adds nftables' tables; those of families that IPv4 packets do not meet
// at these hooks are left out.
func (r *Rules) AddNFT(tables []datapath.NFTable) {
	for i := range tables {
		t := &tables[i]
		if t.Family != "ip" && t.Family != "inet" {
			continue
		}
		name := t.Family + " " + t.Name
		out := &table{name: name, chains: make(map[string]*chain, len(t.Chains)), sets: make(map[string]*set, len(t.Sets))}
		for k := range t.Sets {
			out.sets[t.Sets[k].Name] = &set{of: &t.Sets[k]}
		}
		r.tables[name] = out
		for k := range t.Chains {
			c := &t.Chains[k]
			added := &chain{name: c.Name, policy: strings.ToUpper(cmp.Or(c.Policy, "accept")), nft: c.Rules}
			out.chains[c.Name] = added
			if !c.Base() {
				continue
			}
			s := Stop{Table: name + " " + c.Name, Priority: c.Priority, NAT: c.Type == "nat", NFT: true}
			r.nft[c.Hook] = append(r.nft[c.Hook], s)
			r.bases[s.Table] = &base{out, added, s}
		}
	}
	for _, list := range r.nft {
		slices.SortStableFunc(list, func(a, b Stop) int { return a.Priority - b.Priority })
	}
}

// compileNFT takes a rule of nftables apart.
func (t *table) compileNFT(text string) *body {
	c := nftCompiler{table: t, body: &body{target: target{kind: passes, effect: "count"}}}
	for _, s := range nft.Parse(text) {
		if c.ended {
			c.baffle("something stands behind what decides")
			break
		}
		c.statement(s)
	}
	return c.body
}

// nftCompiler makes a body of statements.
type nftCompiler struct {
	table *table
	body  *body
	ended bool // what comes now would never be reached
}

func (c *nftCompiler) baffle(format string, args ...any) {
	c.body.target = target{why: fmt.Sprintf(format, args...)}
	c.ended = true
}

func (c *nftCompiler) statement(s nft.Statement) {
	t := &c.body.target
	switch {
	case s.Unknown != "":
		c.baffle("%q is not understood", s.Unknown)
	case s.Match != nil:
		if t.change != nil {
			c.baffle("a condition behind a change is not understood")
			return
		}
		c.body.matches = append(c.body.matches, c.table.nftMatch(s.Match))
	case s.Mark != nil:
		c.change(markChange(s.Mark))
	case s.Update != nil:
		c.change(c.table.remember(s.Update))
	case s.Map != nil:
		t.pick, c.ended = c.table.pickVerdict(s.Map), true
	case s.NAT != nil:
		c.nat(s.NAT)
	case s.Verdict != nil:
		v, why := c.table.verdict(*s.Verdict)
		if why != "" {
			c.baffle("%s", why)
			return
		}
		v.change, c.ended = t.change, v.kind != passes
		*t = v
	case s.Reject != "":
		t.kind, t.effect, c.ended = decides, "reject with "+s.Reject, true
		t.outcome = Outcome{Verdict: Reject, RejectWith: s.Reject}
	}
}

func (c *nftCompiler) change(f func(w *way) string) {
	t := &c.body.target
	before := t.change
	t.change = func(w *way) string {
		if before != nil {
			before(w)
		}
		return f(w)
	}
}

// verdict makes a target of a verdict.
func (t *table) verdict(v nft.Verdict) (out target, why string) {
	switch v.Kind {
	case "accept":
		return target{kind: decides, effect: "accept", outcome: Outcome{Verdict: Accept}}, ""
	case "drop":
		return target{kind: decides, effect: "drop", outcome: Outcome{Verdict: Drop}}, ""
	case "return":
		return target{kind: returns, effect: "return"}, ""
	case "continue":
		return target{kind: passes, effect: "continue"}, ""
	}
	to := t.chains[v.Target]
	switch {
	case to == nil:
		return target{}, "chain " + v.Target + " is not listed"
	case v.Kind == "goto":
		return target{kind: goes, chain: to, effect: "goto " + to.name}, ""
	default:
		return target{kind: jumps, chain: to, effect: "jump " + to.name}, ""
	}
}

// markChange is linux net/netfilter/nft_bitwise.c with what nft makes of the
// three operators.
func markChange(m *nft.Mark) func(w *way) string {
	return func(w *way) string {
		switch m.Op {
		case "or":
			w.packet.Mark |= m.Value
		case "xor":
			w.packet.Mark ^= m.Value
		case "and":
			w.packet.Mark &= m.Value
		default:
			w.packet.Mark = m.Value
		}
		return "mark " + hex(w.packet.Mark)
	}
}
