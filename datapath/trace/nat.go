package trace

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
	"slipway/datapath/netfilter"
)

// manip is which end of a packet a hook translates: the destination in
// PREROUTING and OUTPUT, the source in POSTROUTING and INPUT (linux
// include/net/netfilter/nf_nat.h, HOOK2MANIP).
func manip(stage Stage) (source bool) { return stage == Postrouting || stage == Input }

// settled reports whether the connection's translation of that end is decided.
func (c *conn) settled(source bool) bool {
	if source {
		return c.source
	}
	return c.destination
}

func (c *conn) settle(source bool) {
	if source {
		c.source = true
	} else {
		c.destination = true
	}
}

// translation notes what a nat rule asked for in the connection's reply tuple
// (net/netfilter/nf_nat_core.c, nf_nat_setup_info).
func (w *walk) translation(pl *place, s *skb, at hookPoint, n netfilter.NAT) *fault {
	c := s.ct
	now := c.reply.src
	if n.Source {
		now = c.reply.dst
	}
	to, flt := w.target(pl, s, at, n, now)
	if flt != nil {
		return flt
	}
	if n.Source {
		c.random = n.Random || n.RandomFully
		c.snat, c.reply.dst = c.snat || to != now || c.random, to
		c.masqueraded = n.Kind == netfilter.Masquerade
	} else {
		c.dnat, c.reply.src = c.dnat || to != now, to
	}
	if s.p.ICMP != nil { // the identifier is one for both directions
		c.reply.src = netip.AddrPortFrom(c.reply.src.Addr(), c.orig.src.Port())
		c.reply.dst = netip.AddrPortFrom(c.reply.dst.Addr(), c.orig.src.Port())
	}
	return nil
}

// target is the address and port that a nat rule leads to.
func (w *walk) target(pl *place, s *skb, at hookPoint, n netfilter.NAT, now netip.AddrPort) (netip.AddrPort, *fault) {
	address, port := n.Min.Addr(), n.Min.Port()
	switch n.Kind {
	case netfilter.Masquerade:
		gw := s.p.Dst
		if at.rt != nil && at.rt.gw.IsValid() {
			gw = at.rt.gw
		}
		own, ok := selectAddress(pl, at.out, gw, scopeUniverse)
		if !ok {
			return now, &fault{reason: ReasonNoMasquerade, table: "nat", text: fmt.Sprintf("%s has no address to masquerade with", at.out)}
		}
		address = own
	case netfilter.Redirect:
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if at.stage == Prerouting {
			d := pl.devices[at.in]
			if d == nil || len(d.Addresses) == 0 {
				return now, &fault{reason: ReasonRuleDrop, table: "nat", text: fmt.Sprintf("%s has no address to redirect to", at.in)}
			}
			address = d.Addresses[0].Addr()
		}
	case netfilter.Netmap:
		return netip.AddrPortFrom(netmap(n, now.Addr()), now.Port()), nil
	default:
		if n.Min.Addr() != n.Max.Addr() {
			return now, unknownFault("nat", "", "which address of %s to %s is taken is a hash that only the kernel knows", n.Min.Addr(), n.Max.Addr())
		}
	}
	if !address.IsValid() || address.IsUnspecified() {
		address = now.Addr()
	}
	if port == 0 || n.Max.Port() != n.Min.Port() && port <= now.Port() && now.Port() <= n.Max.Port() {
		port = now.Port()
	}
	return netip.AddrPortFrom(address, port), nil
}

// netmap keeps the host part of an address (net/netfilter/xt_NETMAP.c).
func netmap(n netfilter.NAT, a netip.Addr) netip.Addr {
	from, to, own := n.Min.Addr().As4(), n.Max.Addr().As4(), a.As4()
	for i := range own {
		host := from[i] ^ to[i]
		own[i] = own[i]&host | from[i]&^host
	}
	return netip.AddrFrom4(own)
}

// translate rewrites the packet at a hook as its connection says
// (net/netfilter/nf_nat_core.c, nf_nat_packet). It reports whether anything changed.
func (s *skb) translate(source bool) bool {
	c := s.ct
	if c == nil || s.ctState == "UNTRACKED" || s.ctState == "INVALID" {
		return false
	}
	if s.p.ICMP.IsError() {
		return s.translateError(source)
	}
	if !c.translates(source, s.ctReply) {
		return false
	}
	before := s.p
	want := c.tuple(!s.ctReply).inverse()
	if source {
		s.p.Src, s.p.SPort = want.src.Addr(), portOf(s.p, want.src)
		s.anySPort = !s.ctReply && (c.random || c.hidden)
	} else {
		s.p.Dst, s.p.DPort = want.dst.Addr(), portOf(s.p, want.dst)
		s.anyDPort = s.ctReply && c.hidden
	}
	return s.p.Src != before.Src || s.p.Dst != before.Dst || s.p.SPort != before.SPort || s.p.DPort != before.DPort || source && s.anySPort
}

// translates reports whether packets of that direction have that end rewritten.
func (c *conn) translates(source, reply bool) bool {
	if source != reply {
		return c.snat
	}
	return c.dnat
}

func portOf(p datapath.Packet, a netip.AddrPort) uint16 {
	if p.ICMP != nil {
		return 0
	}
	return a.Port()
}

// translateError rewrites an ICMP error and the packet it quotes, and reports
// whether the error's own addresses changed
// (net/netfilter/nf_nat_proto.c, nf_nat_icmp_reply_translation).
func (s *skb) translateError(source bool) bool {
	c := s.ct
	if !c.translates(source, s.ctReply) {
		return false
	}
	t := c.tuple(!s.ctReply)
	before := s.p
	m := *s.p.ICMP
	if m.Quoted != nil {
		q := *m.Quoted
		if source { // the quoted packet went the other way
			q.Dst, q.DPort = t.dst.Addr(), portOf(q, t.dst)
		} else {
			q.Src, q.SPort = t.src.Addr(), portOf(q, t.src)
		}
		m.Quoted = &q
	}
	s.p.ICMP = &m
	if source {
		s.p.Src = t.inverse().src.Addr()
	} else {
		s.p.Dst = t.inverse().dst.Addr()
	}
	return s.p.Src != before.Src || s.p.Dst != before.Dst
}
