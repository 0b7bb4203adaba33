package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"slipway/datapath"
)

// tuple is one direction of a connection (struct nf_conntrack_tuple). Of ICMP
// both ports are the echo's identifier.
type tuple struct {
	proto    string
	src, dst netip.AddrPort
}

func (t tuple) inverse() tuple { return tuple{t.proto, t.dst, t.src} }

func tupleOf(p datapath.Packet) tuple {
	if p.ICMP != nil {
		return tuple{p.Proto, netip.AddrPortFrom(p.Src, p.ICMP.ID), netip.AddrPortFrom(p.Dst, p.ICMP.ID)}
	}
	return tuple{p.Proto, p.Source(), p.Destination()}
}

// conn is a tracked connection (struct nf_conn).
type conn struct {
	orig, reply tuple
	mark        uint32
	dnat, snat  bool // IPS_DST_NAT, IPS_SRC_NAT
	// destination and source: whether that is translated is settled
	// (IPS_DST_NAT_DONE, IPS_SRC_NAT_DONE).
	destination, source bool
	confirmed, assured  bool
	seenReply           bool
	masqueraded         bool
	// random: the port of the translated source is chosen at random; hidden:
	// that of the original one is not known either.
	random, hidden bool
	known          bool // was there before this packet
}

// tuple is the connection's tuple of a direction.
func (c *conn) tuple(reply bool) tuple {
	if reply {
		return c.reply
	}
	return c.orig
}

// connections is a namespace's connection tracking.
type connections struct {
	all   []*conn
	added int
}

func (w *walk) connections(pl *place) *connections {
	t := w.tracked[pl.name]
	if t != nil {
		return t
	}
	t = &connections{}
	w.tracked[pl.name] = t
	if pl.st.Conntrack == nil {
		return t
	}
	for _, e := range pl.st.Conntrack.Entries {
		c := &conn{
			orig: tuple{e.Proto, e.OrigSrc, e.OrigDst}, reply: tuple{e.Proto, e.ReplySrc, e.ReplyDst}, mark: e.Mark,
			destination: true, source: true, confirmed: true, assured: e.Assured, known: true,
		}
		c.dnat, c.snat = e.OrigDst != e.ReplySrc, e.OrigSrc != e.ReplyDst
		c.seenReply = e.Assured || e.State != "" && !strings.HasPrefix(e.State, "SYN_SENT")
		t.all = append(t.all, c)
	}
	return t
}

func (t *connections) find(want tuple) (c *conn, reply bool) {
	for _, c := range t.all {
		if c.orig == want {
			return c, false
		}
		if c.reply == want {
			return c, true
		}
	}
	return nil, false
}

// track is nf_conntrack_in (net/netfilter/nf_conntrack_core.c): it finds or
// makes the connection that a packet belongs to.
func (w *walk) track(pl *place, s *skb) *fault {
	if s.ct != nil || s.ctState != "" || !pl.tracks() {
		return nil
	}
	t := w.connections(pl)
	if s.p.ICMP.IsError() {
		t.relate(s)
		return nil
	}
	want := tupleOf(s.p)
	c, reply := t.find(want)
	if c == nil {
		if !begins(s.p) {
			s.ctState = "INVALID"
			return nil
		}
		if flt := full(pl, t); flt != nil {
			return flt
		}
		c = &conn{orig: want, reply: want.inverse(), hidden: s.anySPort}
		t.all = append(t.all, c)
		t.added++
	}
	s.ct, s.ctReply = c, reply
	if reply {
		c.seenReply = true
	}
	s.ctState = "NEW"
	if c.seenReply {
		s.ctState = "ESTABLISHED"
	}
	return nil
}

// begins reports whether a packet may be a connection's first
// (nf_conntrack_proto_tcp.c, tcp_new; nf_conntrack_proto_icmp.c, valid_new).
func begins(p datapath.Packet) bool {
	switch {
	case p.Proto == "tcp":
		return !strings.Contains(p.Flags, "RST") && !(strings.Contains(p.Flags, "SYN") && strings.Contains(p.Flags, "ACK"))
	case p.ICMP != nil:
		switch p.ICMP.Type {
		case icmpEcho, 13, 15, 17: // timestamp, information, address mask request
			return true
		}
		return false
	}
	return true
}

// relate finds the connection that an ICMP error is about
// (nf_conntrack_proto_icmp.c, nf_conntrack_inet_error).
func (t *connections) relate(s *skb) {
	s.ctState = "INVALID"
	if s.p.ICMP.Quoted == nil {
		return
	}
	c, reply := t.find(tupleOf(*s.p.ICMP.Quoted).inverse())
	if c == nil || c.tuple(reply).dst.Addr() != s.p.Dst {
		return
	}
	s.ct, s.ctReply, s.ctState = c, reply, "RELATED"
}

// full is what happens to a new connection when the table is
// (nf_conntrack_core.c, __nf_conntrack_alloc).
func full(pl *place, t *connections) *fault {
	st := pl.st.Conntrack
	if st == nil || st.Max <= 0 || st.Count+t.added < st.Max {
		return nil
	}
	return &fault{
		reason: ReasonConntrackFull, table: "conntrack", rule: fmt.Sprintf("nf_conntrack_count = %d, nf_conntrack_max = %d", st.Count, st.Max),
		text: fmt.Sprintf("the connection tracking table is full (%d of %d), so that the first packet of a new connection is dropped, unless the kernel finds one to evict that never had an answer", st.Count, st.Max),
		hint: "sysctl -w net.netfilter.nf_conntrack_max=… , or find what opens so many connections (conntrack -S, early_drop and drop)",
	}
}

// describe is the state as hops show it.
func (s *skb) describe() string {
	out := strings.ToLower(s.ctState)
	if s.ct != nil && s.ctReply {
		out += ", reply"
	}
	if s.ct != nil && s.ct.known && s.ctState != "RELATED" {
		out += " (known before)"
	}
	return out
}
