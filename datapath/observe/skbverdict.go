package observe

import (
	"errors"
	"fmt"
	"syscall"

	"slipway/datapath/trace"
)

// verdict judges an exchange. It says delivered, dropped or rejected only where
// events, or the sender's own socket, leave no doubt.
type verdict struct {
	w           *World
	there, back *way

	verdict trace.Verdict
	cause   *trace.Cause
	notes   []string
}

func (v *verdict) judge() {
	switch {
	case v.there.end() == nil && v.back.end() == nil:
		v.nothing()
	case v.there.delivered():
		v.answer()
	default:
		v.request()
	}
}

// nothing judges a packet that no event shows.
func (v *verdict) nothing() {
	if v.w.Answer.Err == nil || v.w.Lost > 0 {
		v.unknown(nil, "no event was seen of the packet")
		return
	}
	s := v.w.Sender
	v.cause = errnoCause(v.w.Answer.Err)
	v.cause.Node, v.cause.Namespace, v.cause.Place, v.cause.Stage = s.Node, s.Namespace, s.Label, trace.Socket
	v.cause.Text = fmt.Sprintf("%s: the kernel refused to send it: %s", s.Label, v.cause.Kernel)
	v.verdict = trace.Rejected
}

// request judges a request that was not seen to arrive.
func (v *verdict) request() {
	v.cause = v.there.cause(firstOf(v.back))
	if v.cause == nil && v.back.end() != nil && refuses(&v.back.list[0].first().packet.IP) {
		v.cause = v.refusal()
	}
	switch {
	case v.cause != nil && v.told():
		v.verdict = trace.Rejected
		v.there.rejected()
	case v.cause != nil && v.w.Answer.Got:
		v.contradiction()
	case v.cause != nil:
		v.verdict = trace.Dropped
	default:
		if v.w.Answer.Got {
			v.notes = append(v.notes, "the sender got its answer, but no event shows the request's arrival")
		}
		v.unknown(v.there, "")
	}
}

// told reports whether the sender learnt that its packet was not delivered.
func (v *verdict) told() bool {
	if v.w.Answer.Err != nil {
		return true
	}
	b := firstOf(v.back)
	return b != nil && refuses(&b.packet.IP) && v.back.delivered()
}

// rejected turns the drop at the last hop into a rejection.
func (w *way) rejected() {
	if e := w.end(); e != nil && e.hop.Action == trace.Drop {
		e.hop.Action = trace.Reject
	}
}

// refusal explains a request by the answer that refuses it, where no event of
// the request itself does.
func (v *verdict) refusal() *trace.Cause {
	first := v.back.list[0]
	c := causeAt(first, first.first())
	ip := first.first().packet.IP
	d := drops["NO_SOCKET"]
	if ip.ICMP != nil {
		e := v.there.leaving(first.first())
		if e != nil {
			c = causeAt(e, e.last())
		}
		d = icmpDrop(ip.ICMP.Type, ip.ICMP.Code, false, e != nil)
	}
	c.Reason, c.Table, c.Stage, c.Hint = d.reason, d.table, d.stage, d.hint
	c.Text = fmt.Sprintf("%s answers %s: %s", c.Place, Describe(ip), d.text)
	if d.reason == "" {
		c.Reason, c.Text = trace.ReasonNotSeen, fmt.Sprintf("%s answers %s", c.Place, Describe(ip))
	}
	if c.Stage == "" {
		c.Stage = first.hop.Stage
	}
	return c
}

// leaving is the last hop of a way that was on its way out of the host that
// answers, so that its route was found; nil if it was not.
func (w *way) leaving(answer *sighting) *passage {
	e := w.end()
	if e == nil || e.hop.Packet.Outer != nil || e.last().Inode != answer.Inode || e.hop.Stage != trace.Postrouting && e.hop.Stage != trace.Egress {
		return nil
	}
	return e
}

// answer judges the answer to a request that arrived.
func (v *verdict) answer() {
	switch {
	case v.back.end() == nil && v.w.Answer.Got:
		v.unknown(v.there, "the sender got its answer, but no event shows it")
	case v.back.end() == nil:
		v.unknown(v.there, "the request was taken, no answer was seen")
		v.cause.Reply = true
	case v.back.delivered() && (v.w.Answer.Got || v.w.Live && !refuses(&v.back.list[0].first().packet.IP)):
		v.verdict = trace.Delivered
	case v.w.Live && v.back.end().hop.Stage == trace.Input && v.back.cause(nil) == nil:
		// The kernel ends a handshake's packets without an event.
		v.notes = append(v.notes, "the answer passed the last hook before its socket; no event shows that the socket took it")
		v.verdict = trace.Delivered
	case v.back.delivered() && v.told():
		v.cause = v.refusal()
		v.verdict = trace.Rejected
	default:
		v.cause = v.back.cause(nil)
		switch {
		case v.cause != nil && v.w.Answer.Got:
			v.contradiction()
		case v.cause != nil:
			v.verdict = trace.Dropped
		default:
			v.unknown(v.back, "")
		}
	}
}

// contradiction is where the sender has its answer though an event says that
// the packet was lost: another copy of it must have come through.
func (v *verdict) contradiction() {
	v.notes = append(v.notes, "the sender got its answer, though an event says that the packet was lost: "+v.cause.Text)
	v.verdict = trace.Unknown
}

// unknown says where the packet was last seen.
func (v *verdict) unknown(w *way, text string) {
	v.verdict = trace.Unknown
	v.cause = &trace.Cause{Node: v.w.Sender.Node, Namespace: v.w.Sender.Namespace, Place: v.w.Sender.Label, Stage: trace.Socket, Reason: trace.ReasonNotSeen, Text: text}
	if w == nil || w.end() == nil {
		return
	}
	h := w.end().hop
	v.cause = &trace.Cause{
		Node: h.Node, Namespace: h.Namespace, Place: h.Place, Device: h.Device, Stage: h.Stage, Reason: trace.ReasonNotSeen, Reply: w.reply, Text: text,
	}
	if text != "" {
		return
	}
	v.cause.Text = "last seen at " + h.At() + "; no event says what became of it"
	switch h.Stage {
	case trace.Egress:
		v.cause.Text = "last seen when " + h.Place + " gave it to " + h.Device + "; nothing was seen to take it from there"
		v.cause.Hint = "a tunnel device whose process does not read, or a link without another end"
	case trace.Postrouting, trace.Output:
		v.cause.Text = "last seen at " + h.At() + ", before its device: it may wait for the next hop's MAC"
		v.cause.Hint = "ip neigh"
	case trace.Input:
		if h.Packet.Outer != nil {
			v.cause.Text = "last seen at " + h.At() + " inside its tunnel: the tunnel's socket may hold it"
			v.cause.Hint = "is the tunnel's process alive?"
			return
		}
		v.cause.Text = "last seen at " + h.At() + ", on its way to a socket; no event says that it was read"
	}
}

// errnos are what the system says when it does not even send.
var errnos = []struct {
	err   error
	drop  drop
	table string
}{
	{syscall.ENETUNREACH, drops["IP_OUTNOROUTES"], "main"},
	{syscall.EHOSTUNREACH, drop{reason: trace.ReasonUnreachable, hint: "ip route get"}, "main"},
	{syscall.EACCES, drop{reason: trace.ReasonProhibit, hint: "ip route get"}, "main"},
	{syscall.EINVAL, drop{reason: trace.ReasonBlackhole, hint: "ip route get"}, "main"},
	{syscall.EMSGSIZE, drops["PKT_TOO_BIG"], "link"},
	{syscall.EPERM, drop{reason: trace.ReasonRuleDrop, hint: "iptables-save"}, "filter"},
	{syscall.ECONNREFUSED, drops["NO_SOCKET"], "socket"},
}

// errnoCause explains an error of the system's; none is not seen.
func errnoCause(err error) *trace.Cause {
	if err == nil {
		return &trace.Cause{Reason: trace.ReasonNotSeen}
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return &trace.Cause{Reason: e.drop.reason, Table: e.table, Hint: e.drop.hint, Kernel: e.err.Error()}
		}
	}
	c := &trace.Cause{Reason: trace.ReasonNotSeen, Kernel: err.Error()}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		c.Kernel = errno.Error()
	}
	return c
}
