package trace

import (
	"fmt"
	"strings"

	"slipway/datapath"
)

// deliver hands a packet to whoever takes its protocol in pl (net/ipv4/ip_input.c,
// ip_protocol_deliver_rcu).
func (w *walk) deliver(pl *place, dev *datapath.Device, s *skb) end {
	if w.back {
		return w.heard(pl, dev, s)
	}
	switch {
	case s.p.ICMP != nil:
		return w.deliverICMP(pl, dev, s)
	case s.p.Proto == "tcp" || s.p.Proto == "udp" || s.p.Proto == "sctp":
		return w.deliverSocket(pl, dev, s)
	}
	return w.stop(pl, s, Hop{Stage: Deliver, Device: dev.Name}, &fault{
		reason: ReasonNoListener, table: "socket", icmp: unreachable(codeProtoUnreachable),
		text: fmt.Sprintf("nothing here takes packets of protocol %s", s.p.Proto),
	})
}

// arrived ends a request where it is taken, with the answer to it.
func (w *walk) arrived(pl *place, dev *datapath.Device, s *skb, who string, back datapath.Packet) end {
	got := *s
	w.hop(pl, s, Hop{Stage: Deliver, Device: dev.Name, Action: DeliverAction, Reason: who})
	return end{verdict: Delivered, at: pl, got: &got, answer: &answer{from: pl, s: s.answer(back)}}
}

// deliverICMP is icmp_rcv: the kernel itself answers echoes (net/ipv4/icmp.c).
func (w *walk) deliverICMP(pl *place, dev *datapath.Device, s *skb) end {
	if s.p.ICMP.Type != icmpEcho {
		return w.stop(pl, s, Hop{Stage: Deliver, Device: dev.Name}, unknownFault("socket", "", "who listens to %s is not known", icmpName(s.p.ICMP)))
	}
	if pl.sysctl("net/ipv4/icmp_echo_ignore_all", "0") == "1" {
		return w.stop(pl, s, Hop{Stage: Deliver, Device: dev.Name}, &fault{
			reason: ReasonNoListener, table: "sysctl", rule: "net.ipv4.icmp_echo_ignore_all = 1",
			text: "the kernel is told not to answer pings", hint: "sysctl -w net.ipv4.icmp_echo_ignore_all=0 on " + pl.label(),
		})
	}
	back := swapped(s.p, pl)
	back.Length = s.p.Length
	back.ICMP = &datapath.ICMPInfo{Type: icmpEchoReply, ID: s.p.ICMP.ID, Seq: s.p.ICMP.Seq}
	return w.arrived(pl, dev, s, "the kernel of "+pl.label()+" takes the ping", back)
}

func (w *walk) deliverSocket(pl *place, dev *datapath.Device, s *skb) end {
	sock := listener(pl, s.p)
	if sock == nil {
		flt := &fault{
			reason: ReasonNoListener, table: "socket",
			text: fmt.Sprintf("nothing listens on %s port %d", s.p.Proto, s.p.DPort),
			hint: fmt.Sprintf("ss -lnp in %s", pl.label()),
		}
		if s.p.Proto == "udp" {
			flt.icmp = unreachable(codePortUnreachable)
		} else {
			flt.reset = true
		}
		got := *s
		e := w.stop(pl, s, Hop{Stage: Deliver, Device: dev.Name}, flt)
		e.got = &got
		return e
	}
	back := swapped(s.p, pl)
	switch s.p.Proto {
	case "tcp":
		back.Flags, back.Length, back.DF = "SYN,ACK", s.p.Length, true
	case "udp":
		w.note("that the UDP server answers is assumed")
	}
	return w.arrived(pl, dev, s, fmt.Sprintf("a %s socket on %s takes it", s.p.Proto, socketName(sock)), back)
}

// listener finds the socket that takes a new connection or a datagram
// (net/ipv4/inet_hashtables.c, udp.c).
func listener(pl *place, p datapath.Packet) *datapath.SocketState {
	var best *datapath.SocketState
	for i := range pl.st.Sockets {
		k := &pl.st.Sockets[i]
		any4 := unspecified(k.Local.Addr()) && (k.Dual || !k.Local.Addr().IsValid() || k.Local.Addr().Is4())
		switch {
		case k.Proto != p.Proto || k.Local.Port() != p.DPort || k.State == "established":
		case k.Local.Addr().Unmap() == p.Dst:
			return k
		case any4 && best == nil:
			best = k
		}
	}
	return best
}

func socketName(k *datapath.SocketState) string {
	if unspecified(k.Local.Addr()) {
		return fmt.Sprintf("port %d of all addresses", k.Local.Port())
	}
	return k.Local.String()
}

// heard is an answer that came to a namespace: is it the one that asked, and
// does the asking socket take it?
func (w *walk) heard(pl *place, dev *datapath.Device, s *skb) end {
	if pl.name == w.from.name && w.answers(s) {
		w.hop(pl, s, Hop{Stage: Deliver, Device: dev.Name, Action: DeliverAction, Reason: "the sender has its answer"})
		return end{verdict: Delivered, at: pl}
	}
	f := &fault{reason: ReasonReplyLost, table: "socket", text: fmt.Sprintf("the answer %s came here, where nobody waits for it", s.shown())}
	if pl.name == w.from.name {
		f.reason = ReasonWrongSource
		f.text = fmt.Sprintf("the answer comes from %s, but %s was asked: no socket waits for that", answerSource(s), addressText(w.sent, false))
		f.hint = "the answer did not pass the node that translated the request's destination: that node must masquerade such requests"
	} else if _, own := pl.st.LocalAddress(s.p.Dst); own {
		f.text += fmt.Sprintf("; %s is an address of this place", s.p.Dst)
	}
	return w.stop(pl, s, Hop{Stage: Deliver, Device: dev.Name}, f)
}

func answerSource(s *skb) string {
	if s.p.ICMP.IsError() {
		return s.p.Src.String()
	}
	return addressText(s.p, true)
}

// answers reports whether a packet is an answer to what was sent, by the
// addresses that the sender's socket knows.
func (w *walk) answers(s *skb) bool {
	if m := s.p.ICMP; m.IsError() {
		return m.Quoted != nil && sameTuple(tupleOf(*m.Quoted), tupleOf(w.sent))
	}
	return sameTuple(tupleOf(s.p), tupleOf(w.sent).inverse())
}

func sameTuple(a, b tuple) bool {
	return a == b
}

// blameMasquerade adds to an answer's loss what usually causes it: nobody
// masqueraded a source that the answering side cannot reach.
func (w *walk) blameMasquerade(c *Cause, r end) {
	if c.Reason != ReasonNoRoute || r.at == nil || len(w.request) == 0 {
		return
	}
	last := w.request[len(w.request)-1]
	if last.Packet.Src != w.sent.Src || last.Namespace != r.at.name {
		return
	}
	for i := len(w.request) - 1; i >= 0; i-- {
		if h := w.request[i]; h.Stage == Postrouting && h.Namespace != r.at.name && !strings.HasPrefix(string(h.Action), "snat") {
			c.Hint = fmt.Sprintf("%s sent the request on without masquerading its source %s, which %s cannot reach: see table nat, POSTROUTING", h.Place, w.sent.Src, c.Place)
			return
		}
	}
}
