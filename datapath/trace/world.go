package trace

import (
	"fmt"
	"strings"

	"slipway/datapath"
	"slipway/datapath/netfilter"
)

// Cache keeps what predictions read of one Network, so that several of them
// read each namespace once. It is good as long as the network does not change,
// and for one goroutine at a time.
type Cache struct {
	net    Network
	places map[string]*place
	passed map[string]*place // read in part: see [Sketcher]
	peers  map[wireEnd]peerAnswer
	evals  map[string][]netfilter.Outcome
}

// NewCache makes an empty cache of a network.
func NewCache(n Network) *Cache {
	return &Cache{net: n, places: map[string]*place{}, passed: map[string]*place{}, peers: map[wireEnd]peerAnswer{}, evals: map[string][]netfilter.Outcome{}}
}

// wireEnd is a device of a namespace.
type wireEnd struct{ namespace, device string }

type peerAnswer struct {
	end wireEnd
	err error
}

// place is one namespace, ready to be asked.
type place struct {
	Place
	name     string
	st       *datapath.NetState
	err      error // why st is nil
	devices  map[string]*datapath.Device
	fib      *fib
	rules    *netfilter.Rules
	rulesErr error // why there are none
	addrType addrTypes
}

// place reads a namespace, once.
func (c *Cache) place(namespace string) *place {
	if pl := c.places[namespace]; pl != nil {
		return pl
	}
	pl := &place{Place: c.net.Place(namespace), name: namespace}
	c.places[namespace] = pl
	st, err := c.net.State(namespace)
	if err != nil {
		pl.err = fmt.Errorf("read the state of %s: %w", namespace, err)
		return pl
	}
	pl.load(st)
	return pl
}

// bystander is a place that a frame may only pass by, read in part if it has not
// been read in full.
func (c *Cache) bystander(namespace string) *place {
	sketcher, ok := c.net.(Sketcher)
	if pl := c.places[namespace]; pl != nil || !ok {
		return c.place(namespace)
	}
	if pl := c.passed[namespace]; pl != nil {
		return pl
	}
	pl := &place{Place: c.net.Place(namespace), name: namespace}
	c.passed[namespace] = pl
	st, err := sketcher.Sketch(namespace)
	if err != nil {
		pl.err = fmt.Errorf("read the devices of %s: %w", namespace, err)
		return pl
	}
	pl.load(st)
	return pl
}

func (p *place) load(st *datapath.NetState) {
	p.st = st
	p.devices = make(map[string]*datapath.Device, len(st.Devices))
	for i := range st.Devices {
		p.devices[st.Devices[i].Name] = &st.Devices[i]
	}
	p.fib = newFIB(st)
	p.addrType = netfilter.AddrTypes(st)
	p.rules, p.rulesErr = netfilter.ParseState(st)
}

// peer finds the other end of a veth, once.
func (c *Cache) peer(namespace, device string) (wireEnd, error) {
	key := wireEnd{namespace, device}
	a, ok := c.peers[key]
	if !ok {
		a.end.namespace, a.end.device, a.err = c.net.Peer(namespace, device)
		c.peers[key] = a
	}
	return a.end, a.err
}

// eval asks a table what becomes of a packet, once for each question.
func (c *Cache) eval(p *place, q netfilter.Query) []netfilter.Outcome {
	key := queryKey(p.name, q)
	if o, ok := c.evals[key]; ok {
		return o
	}
	o := p.rules.Eval(q)
	c.evals[key] = o
	return o
}

// queryKey holds everything in a query that outcomes depend on, besides the
// namespace's state.
func queryKey(namespace string, q netfilter.Query) string {
	p := q.Packet
	icmp := ""
	if p.ICMP != nil {
		icmp = fmt.Sprint(p.ICMP.Type, p.ICMP.Code)
	}
	return fmt.Sprint(namespace, q.Hook, q.Table, "|", q.In, "|", q.Out, "|", q.Bridged, q.PhysIn, "|", q.PhysOut, "|",
		p, p.Length, p.DF, p.Mark, p.Flags, "|", icmp, "|", q.State, q.Reply, q.DNATed, q.SNATed, q.Assured, q.Confirmed,
		q.OrigSrc, q.OrigDst, q.ReplySrc, q.ReplyDst, q.CTMark)
}

// sysctl reads a value, with what the kernel has by default.
func (p *place) sysctl(key, fallback string) string {
	if v, ok := p.st.Sysctls[key]; ok {
		return strings.TrimSpace(v)
	}
	return fallback
}

// node is whose machine the place is on, for hops and causes.
func (p *place) node() string {
	if p.Node != "" {
		return p.Node
	}
	return p.label()
}

func (p *place) label() string {
	if p.Label != "" {
		return p.Label
	}
	return p.name
}

// ports lists the devices enslaved to a bridge.
func (p *place) ports(bridge string) []*datapath.Device {
	var out []*datapath.Device
	for i := range p.st.Devices {
		if p.st.Devices[i].Master == bridge {
			out = append(out, &p.st.Devices[i])
		}
	}
	return out
}

// tracks reports whether connections are tracked: something asked for it, which
// a nat table always does.
func (p *place) tracks() bool {
	return p.st.Conntrack != nil || p.rules != nil && p.rules.TracksForNAT()
}

// stops are where a packet is asked at a hook.
func (p *place) stops(stage Stage) []netfilter.Stop {
	rules := p.rules
	if rules == nil {
		rules = &netfilter.Rules{}
	}
	return rules.Stops(string(stage))
}

// hasRules reports whether there is anything to read.
func (p *place) hasRules() bool {
	return len(p.st.RuleSave) > 0 || p.st.NFTables != "" || len(p.st.NFTPlanned) > 0
}
