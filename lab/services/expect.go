package services

import (
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/netfilter"
)

// Expected is what a node's rules make of a new connection, by chance.
type Expected struct {
	Node string `json:"node"` // whose rules decide
	Hook string `json:"hook"` // where: prerouting | output
	// Shares are the endpoints that it may be led to.
	Shares []Share `json:"shares"`
	// Refused, Dropped and Passed (on without translation) are the
	// probabilities of other ends.
	Refused float64 `json:"refused,omitempty"`
	Dropped float64 `json:"dropped,omitempty"`
	Passed  float64 `json:"passed,omitempty"`
	// Unknown is the probability that the rules do something not understood
	// here, and Rule the first that is not.
	Unknown float64 `json:"unknown,omitempty"`
	Rule    string  `json:"rule,omitempty"`
	// AffinitySeconds is for how long a client is led to the same endpoint;
	// zero: it is not.
	AffinitySeconds int `json:"affinitySeconds,omitempty"`
}

// Share is an endpoint's part.
type Share struct {
	Endpoint    netip.AddrPort `json:"endpoint"`
	Probability float64        `json:"probability"`
	// Masqueraded: the endpoint sees an address of the node instead of the
	// client's.
	Masqueraded bool `json:"masqueraded"`
}

// arrival is a connection's first packet as it comes to a node.
type arrival struct {
	node   *Loaded
	packet datapath.Packet
	in     string // device; empty: sent by the node itself
	out    func(netip.Addr) string
	local  func(netip.Addr) bool
}

func (a *arrival) hook() string {
	if a.in == "" {
		return "output"
	}
	return "prerouting"
}

// filterHook is where table filter sees the packet.
func (a *arrival) filterHook(p datapath.Packet) string {
	switch {
	case a.in == "":
		return "output"
	case a.local(p.Dst):
		return "input"
	default:
		return "forward"
	}
}

// flow is a part of the connections on their way.
type flow struct {
	packet     datapath.Packet
	chance     float64
	translated bool
	nat        *netfilter.NAT // that the hook asked for
}

// expect evaluates the node's rules on a connection's first packet.
func (a *arrival) expect() Expected {
	e := Expected{Node: a.node.Node, Hook: a.hook(), Shares: []Share{}}
	p := &passing{arrival: a, e: &e, rules: a.node.evaluator(), addrType: netfilter.AddrTypes(a.node.State)}
	p.hook(a.hook(), flow{packet: a.packet, chance: 1}, func(f flow) {
		next := a.filterHook(f.packet)
		if next == a.hook() { // it was sent here, and has passed table filter
			p.leave(f)
			return
		}
		p.hook(next, f, p.leave)
	})
	return e
}

// passing takes flows through hooks.
type passing struct {
	*arrival
	e        *Expected
	rules    *netfilter.Rules
	addrType func(a netip.Addr, dev string) (string, bool)
}

// leave is what comes after the filters: the source's translation.
func (p *passing) leave(f flow) {
	if !f.translated {
		p.e.Passed += f.chance
		return
	}
	p.hook("postrouting", f, func(f flow) {
		p.e.share(Share{Endpoint: f.packet.Destination(), Probability: f.chance, Masqueraded: f.nat != nil && f.nat.Source})
	})
}

// hook asks all rules of a hook, in order; what they accept goes on.
func (p *passing) hook(hook string, f flow, on func(flow)) {
	f.nat = nil
	p.stops(hook, p.rules.Stops(hook), f, on)
}

func (p *passing) stops(hook string, stops []netfilter.Stop, f flow, on func(flow)) {
	for i, s := range stops {
		if !p.rules.Has(s.Table) || s.NAT && f.nat != nil {
			continue
		}
		for _, o := range p.rules.Eval(p.query(hook, s.Table, f)) {
			if o.Verdict != netfilter.Accept {
				p.e.add(o, f.chance)
				continue
			}
			g := f
			g.packet, g.chance = o.Packet, f.chance*o.Probability
			if o.NAT != nil {
				g.nat = o.NAT
				if o.NAT.Kind == netfilter.DNAT {
					g.translated, g.packet.Dst, g.packet.DPort = true, o.NAT.Min.Addr(), o.NAT.Min.Port()
				}
			}
			p.stops(hook, stops[i+1:], g, on)
		}
		return
	}
	on(f)
}

func (p *passing) query(hook, table string, f flow) netfilter.Query {
	q := netfilter.Query{Hook: hook, Table: table, Packet: f.packet, In: p.in, State: "NEW", AddrType: p.addrType, DNATed: f.translated,
		OrigSrc: p.packet.Source(), OrigDst: p.packet.Destination(), ReplySrc: f.packet.Destination(), ReplyDst: p.packet.Source()}
	if hook != "prerouting" && hook != "input" {
		q.Out = p.out(f.packet.Dst)
	}
	if hook == "postrouting" || hook == "output" {
		q.In = ""
	}
	return q
}

// add counts an outcome that is not accepted.
func (e *Expected) add(o netfilter.Outcome, chance float64) {
	p := chance * o.Probability
	switch o.Verdict {
	case netfilter.Reject:
		e.Refused += p
	case netfilter.Drop:
		e.Dropped += p
	default:
		e.Unknown += p
		if e.Rule == "" {
			e.Rule = strings.TrimSpace(o.Unknown + " (" + o.Why + ")")
		}
	}
}

// share adds to an endpoint's part, in order of addresses.
func (e *Expected) share(s Share) {
	i, found := slices.BinarySearchFunc(e.Shares, s, func(a, b Share) int {
		if c := a.Endpoint.Compare(b.Endpoint); c != 0 {
			return c
		}
		return boolInt(a.Masqueraded) - boolInt(b.Masqueraded)
	})
	if found {
		e.Shares[i].Probability += s.Probability
		return
	}
	e.Shares = slices.Insert(e.Shares, i, s)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// affinity is for how long the rules that lead to one of the endpoints remember
// a client, zero if they do not.
func affinity(v *PortView, e *Expected) int {
	seconds := 0
	for _, c := range v.Chains {
		for _, r := range c.Rules {
			leads := r.affinityOnly && r.Endpoint != nil && slices.ContainsFunc(e.Shares, func(s Share) bool { return s.Endpoint == r.Endpoint.Address })
			if leads {
				seconds = max(seconds, r.AffinitySeconds)
			}
		}
	}
	return seconds
}

// certain reports the one thing that the rules make of every connection, if it
// is not to lead it to an endpoint.
func (e *Expected) certain() string {
	for _, c := range []struct {
		p    float64
		what string
	}{{e.Refused, "refused"}, {e.Dropped, "dropped"}, {e.Passed, "passed on without translation"}, {e.Unknown, "unknown"}} {
		if nearly(c.p, 1) {
			return c.what
		}
	}
	return ""
}
