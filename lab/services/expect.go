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

// expect evaluates the node's rules on a connection's first packet.
func (a *arrival) expect() Expected {
	e := Expected{Node: a.node.Node, Hook: a.hook(), Shares: []Share{}}
	rules := netfilter.Compile(&a.node.Rules)
	addrType := netfilter.AddrTypes(a.node.State)
	ask := func(hook, table string, p datapath.Packet, translated bool) []netfilter.Outcome {
		q := netfilter.Query{Hook: hook, Table: table, Packet: p, In: a.in, State: "NEW", AddrType: addrType, DNATed: translated,
			OrigSrc: a.packet.Source(), OrigDst: a.packet.Destination(), ReplySrc: p.Destination(), ReplyDst: a.packet.Source()}
		if hook != "prerouting" && hook != "input" {
			q.Out = a.out(p.Dst)
		}
		if hook == "postrouting" || hook == "output" {
			q.In = ""
		}
		return rules.Eval(q)
	}
	for _, o := range ask(a.hook(), "nat", a.packet, false) {
		if o.Verdict != netfilter.Accept {
			e.add(o, 1)
			continue
		}
		p := o.Packet
		translated := o.NAT != nil && o.NAT.Kind == netfilter.DNAT
		if translated {
			p.Dst, p.DPort = o.NAT.Min.Addr(), o.NAT.Min.Port()
		}
		for _, f := range ask(a.filterHook(p), "filter", p, translated) {
			chance := o.Probability * f.Probability
			if f.Verdict != netfilter.Accept {
				e.add(f, o.Probability)
				continue
			}
			if !translated {
				e.Passed += chance
				continue
			}
			p := f.Packet
			p.Dst, p.DPort = o.NAT.Min.Addr(), o.NAT.Min.Port()
			for _, s := range ask("postrouting", "nat", p, true) {
				if s.Verdict != netfilter.Accept {
					e.add(s, chance)
					continue
				}
				e.share(Share{Endpoint: p.Destination(), Probability: chance * s.Probability, Masqueraded: s.NAT != nil && s.NAT.Source})
			}
		}
	}
	return e
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
