package trace

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"slipway/datapath"
)

// Options tune a prediction. The zero value is good.
type Options struct {
	// MaxBranches bounds how many ways are walked, the likeliest first; 0 is
	// 256. What is left out is said in the prediction's notes.
	MaxBranches int
	// MaxHops bounds the hops of one packet, against frames that go round in
	// circles; 0 is 4096, more than a routing loop needs to use up any TTL.
	MaxHops int
	// Cache, if set, must be of the same network; several predictions then read
	// each namespace once.
	Cache *Cache
}

// Predict walks a packet from a process in the namespace from through the
// network, and its answer back. Parts that are missing are filled in as the
// kernel does: the source by the route lookup, TTL and length by what is usual.
func Predict(n Network, from string, p datapath.Packet, o Options) Prediction {
	c := o.Cache
	if c == nil {
		c = NewCache(n)
	}
	x := explorer{limit: cmp.Or(o.MaxBranches, 256)}
	notes := map[string]bool{}
	branches := x.explore(func(choose func([]float64) int, prob func() float64) Branch {
		w := &walk{
			Cache: c, choose: choose, prob: prob, maxHops: cmp.Or(o.MaxHops, 4096), notes: notes,
			tracked: map[string]*connections{}, learned: map[wireEnd]map[string]string{}, arp: map[arpKey]string{},
		}
		return w.exchange(from, p)
	})
	out := Prediction{Branches: merge(branches), Notes: slices.Sorted(maps.Keys(notes))}
	if x.left > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d less likely ways, together %.2g of all packets, are not walked", x.leftCount, x.left))
	}
	return out
}

// exchange walks the request and its answer.
func (w *walk) exchange(from string, p datapath.Packet) Branch {
	w.from = w.place(from)
	s := &skb{p: p}
	if w.from.err != nil {
		e := w.lost(w.from, s, Socket, "")
		return Branch{Verdict: Unknown, Cause: e.cause, Hops: w.request}
	}
	complete(&s.p, w.from)
	e := w.send(w.from, s, "a process sends")
	b := Branch{Verdict: e.verdict, Cause: e.cause}
	if e.got != nil {
		b.Endpoint = netip.AddrPortFrom(e.got.p.Dst, e.got.p.DPort)
	}
	if e.got != nil && e.at.Pod {
		b.Pod = e.at.Label
	}
	if e.answer != nil {
		w.answered(&b, e)
	}
	b.Hops, b.Reply = w.request, w.reply
	return b
}

// answered walks the answer and makes the verdict about the whole exchange.
func (w *walk) answered(b *Branch, e end) {
	w.back = true
	var r end
	if e.answer.by != "" {
		r = w.receive(e.answer.from, e.answer.by, e.answer.s)
	} else {
		r = w.send(e.answer.from, e.answer.s, answerText(e.answer.s.p))
	}
	switch {
	case r.verdict == Delivered:
		return
	case e.verdict == Delivered:
		b.Verdict, b.Cause = r.verdict, r.cause
		if r.verdict == Rejected {
			b.Verdict = Dropped // the sender of the request is told nothing
		}
		b.Cause.Reply = true
		w.blameMasquerade(b.Cause, r)
	default:
		b.Verdict = Dropped
		if r.cause != nil {
			b.Cause.Text += "; the answer that says so is lost: " + r.cause.Text
		}
	}
}

// complete fills in what a sender's kernel does.
func complete(p *datapath.Packet, from *place) {
	p.TTL = cmp.Or(p.TTL, from.sysctlTTL())
	p.Outer = nil
	switch {
	case p.Proto == "tcp" && p.Flags == "":
		p.Flags = "SYN"
	case p.Proto == "icmp" && p.ICMP == nil:
		p.ICMP = &datapath.ICMPInfo{Type: icmpEcho, ID: p.SPort}
	}
	// A SYN with Linux's usual options, ping's 56 bytes, one datagram's header.
	p.Length = cmp.Or(p.Length, map[string]int{"tcp": 60, "icmp": 84, "udp": 28, "sctp": 68}[p.Proto], 20)
}
