package observe

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// deliveries adds the hop at which a socket, or the kernel itself, took the
// packet: behind the input hook there must be an event that shows it.
func (r *reader) deliveries(there, back *way) {
	if e := there.end(); e != nil && r.comesIn(e) {
		by := there.takenAfter(e)
		if b := firstOf(back); by == nil && b != nil && b.Inode == e.first().Inode && !refuses(&b.packet.IP) {
			by = b // it answered
		}
		if by != nil {
			there.deliver(e, *by)
		}
	}
	e := back.end()
	if e == nil || !r.comesIn(e) || e.hop.Namespace != r.w.Sender.Namespace {
		return
	}
	switch by := back.takenAfter(e); {
	case by != nil:
		back.deliver(e, *by)
	case r.w.Answer.Got || r.w.Answer.Err != nil:
		back.deliver(e, *e.last())
		back.end().note = "the sender's socket has its answer"
	default:
		return
	}
	if r.w.NoHooks && r.w.Answer.Got {
		r.answered(&back.end().hop.Packet)
	}
}

// answered gives an answer the addresses that it has for the sender's socket, if
// that took it: those of what was sent, turned round. Which hook put them back
// was not seen.
func (r *reader) answered(p *datapath.Packet) {
	sent := r.w.Sent
	if p.Proto != sent.Proto || !sent.Dst.IsValid() || !sent.Src.IsValid() {
		return
	}
	p.Src, p.SPort, p.Dst, p.DPort = sent.Dst, sent.DPort, sent.Src, sent.SPort
}

// comesIn reports whether a passage is the last that can be seen before a socket.
func (r *reader) comesIn(p *passage) bool {
	last := trace.Input
	if r.w.NoHooks {
		last = trace.Ingress
	}
	return p.hop.Stage == last && p.hop.Packet.Outer == nil
}

// firstOf is the first event of a way; nil if there is none.
func firstOf(w *way) *sighting {
	if len(w.list) == 0 {
		return nil
	}
	return w.list[0].first()
}

// refuses reports whether an answer says that nobody took the request.
func refuses(ip *IPv4) bool {
	return (ip.TCP != nil && ip.TCP.RST) || (ip.ICMP != nil && ip.ICMP.IsError())
}

// takenAfter finds the event that shows that a packet that passed a hook was
// taken; nil if there is none, or one that says that it was lost.
func (w *way) takenAfter(p *passage) *sighting {
	for i := range w.ends {
		e := &w.ends[i]
		if e.life != p.last().life || e.TimeNs < p.last().TimeNs {
			continue
		}
		if e.Point == skbtrace.Consume || (e.Point == skbtrace.Free && taken[e.Reason]) {
			return e
		}
		return nil
	}
	return nil
}

// deliver adds the hop at which the packet was taken.
func (w *way) deliver(after *passage, by sighting) {
	hop := after.hop
	hop.Stage, hop.Action, hop.Rule, hop.Table, hop.Rules = trace.Deliver, trace.DeliverAction, "", "", nil
	w.list = append(w.list, &passage{hop: hop, events: []sighting{by}})
}

func (w *way) delivered() bool {
	e := w.end()
	return e != nil && e.hop.Action == trace.DeliverAction
}

// loss finds the event that says that the packet was lost after it was last
// seen: an error that was sent about it, and its end.
func (w *way) loss() (free, icmp *sighting) {
	last := w.last()
	for i := range w.ends {
		e := &w.ends[i]
		switch {
		case w.isCopysEnd(e):
		case e.Point == skbtrace.ICMPSend && icmp == nil:
			icmp = e
		case e.Point == skbtrace.Free && !taken[e.Reason] && e.TimeNs >= last && free == nil:
			free = e
		}
	}
	return free, icmp
}

func (w *way) isCopysEnd(e *sighting) bool {
	return slices.ContainsFunc(w.copies, func(c *way) bool {
		ended := c.end().ended[0]
		return ended.life == e.life && ended.TimeNs == e.TimeNs
	})
}

// astray explains a packet that a switch sent only where nobody took it.
func (w *way) astray() *trace.Cause {
	end := w.end()
	if end == nil || len(w.copies) == 0 {
		return nil
	}
	from := w.copies[0].list[0]
	if from.hop.Namespace != end.hop.Namespace {
		return nil // it went on from the switch
	}
	c := causeAt(end, end.last())
	c.Reason, c.Table, c.Reply, c.Kernel = trace.ReasonNoFDB, "fdb", w.reply, "OTHERHOST ip_rcv_core"
	takers := make([]string, len(w.copies))
	for i, t := range w.copies {
		takers[i] = t.end().hop.Place
	}
	c.Text = fmt.Sprintf("%s: the switch sent it only where nobody has MAC %s: to %s", c.Place, net.HardwareAddr(from.first().DstMAC[:]), strings.Join(takers, ", "))
	c.Hint = "bridge fdb, bridge link; is the right port up?"
	end.hop.Action, end.hop.Reason, end.hop.Table = trace.Drop, c.Text, c.Table
	for _, t := range w.copies {
		end.ended = append(end.ended, t.end().ended...)
	}
	return c
}

// cause explains a loss, and marks the hop at which it happened, or adds one. It
// returns nil if no event says that there was one.
func (w *way) cause(answer *sighting) *trace.Cause {
	end := w.end()
	free, icmp := w.loss()
	event := free
	if event == nil {
		event = icmp
	}
	if end == nil || event == nil {
		return w.astray()
	}
	if free != nil && free.Reason == "NETFILTER_DROP" {
		return w.droppedInHook(end, free, icmp, answer)
	}
	tunnel := event.packet.Encap != NoEncap
	d := drop{}
	if free != nil {
		d = explain(free, tunnel)
	}
	if icmp != nil && !tunnel {
		out := end.hop.Stage == trace.Postrouting || end.hop.Stage == trace.Egress
		if said := icmpDrop(icmp.ICMPType, icmp.ICMPCode, false, out); said.reason != "" {
			d = said
		}
	}
	c := causeAt(end, event)
	if free != nil {
		c.Kernel = strings.TrimSpace(free.Reason + " " + free.Location)
	}
	c.Reply = w.reply
	c.Reason, c.Table, c.Hint = d.reason, d.table, d.hint
	if d.stage != "" {
		c.Stage = d.stage
	}
	if d.reason == "" {
		c.Reason, d.text = trace.ReasonNotSeen, "the kernel dropped it and gives no reason: "+c.Kernel
	}
	c.Text = fmt.Sprintf("%s: %s", c.Place, d.text)
	w.mark(c, *event, trace.Drop)
	if c.Reason == trace.ReasonMTU && c.Stage == trace.Route {
		c.Device = "" // the device that it does not fit is the one behind, of which there is no event
	}
	return c
}

// causeAt is a cause at the place of an event, or where it does not say, at
// that of the hop before.
func causeAt(end *passage, e *sighting) *trace.Cause {
	c := &trace.Cause{Node: end.hop.Node, Namespace: end.hop.Namespace, Place: end.hop.Place, Device: end.hop.Device, Stage: end.hop.Stage}
	if e.place.Namespace != "" && e.Inode != 0 && e.place.Namespace != c.Namespace {
		// It was received there, which no event shows but that of its end.
		c.Node, c.Namespace, c.Place, c.Device, c.Stage = e.place.Node, e.place.Namespace, e.place.Label, e.Device, trace.Ingress
		if c.Node == "" {
			c.Node = c.Place
		}
	} else if e.Device != "" && e.Device != c.Device {
		c.Device, c.Stage = e.Device, trace.Ingress
	}
	return c
}

// mark says at the last hop, or at one of its own if it happened at another
// stage, that the packet ended there.
func (w *way) mark(c *trace.Cause, event sighting, action trace.Action) {
	end := w.end()
	if end.hop.Stage != c.Stage || end.hop.Namespace != c.Namespace || end.hop.Device != c.Device {
		hop := trace.Hop{Node: c.Node, Namespace: c.Namespace, Place: c.Place, Device: c.Device, Stage: c.Stage, Packet: end.hop.Packet}
		if event.packet.Encap != end.last().packet.Encap {
			hop.Packet = event.traced() // it had left its tunnel
		}
		end = &passage{hop: hop, events: []sighting{event}}
		w.list = append(w.list, end)
	} else {
		end.ended = append(end.ended, event)
	}
	end.hop.Action, end.hop.Reason = action, c.Text
	end.hop.Table = c.Table
}

// droppedInHook explains a packet that netfilter dropped.
func (w *way) droppedInHook(end *passage, free, icmp, answer *sighting) *trace.Cause {
	c := causeAt(end, free)
	c.Kernel, c.Reply, c.Reason = strings.TrimSpace(free.Reason+" "+free.Location), w.reply, trace.ReasonRuleDrop
	action := trace.Drop
	if icmp != nil || (answer != nil && answer.Inode == free.Inode && refuses(&answer.packet.IP)) {
		c.Reason, action = trace.ReasonRuleReject, trace.Reject
	}
	if end.first().Point != skbtrace.Hook {
		c.Text = c.Place + ": netfilter dropped it"
		w.mark(c, *free, action)
		return c
	}
	if free.Inode == end.first().Inode {
		c.Device, c.Stage = end.hop.Device, end.hop.Stage // a bridge's hooks have the port's device
	}
	end.hop.Action = action
	end.hop.Rule, end.hop.Table = "", only(tablesBehind(end.first().Hook, end.last().Priority))
	end.decide()
	c.Table, c.Rule = end.hop.Table, end.hop.Rule
	switch {
	case c.Rule != "":
		c.Text = fmt.Sprintf("%s: %s by rule %s", c.Place, past(action), c.Rule)
		c.Hint = "the rule, or what should have come before it"
	case action == trace.Drop && c.Table == "conntrack":
		c.Reason = trace.ReasonConntrackFull
		c.Text, c.Hint = c.Place+": connection tracking dropped it", "sysctl net.netfilter.nf_conntrack_count and nf_conntrack_max"
	default:
		c.Text = fmt.Sprintf("%s: %s in the %s hook", c.Place, past(action), end.hop.Stage)
	}
	w.mark(c, *free, action)
	return c
}

func past(a trace.Action) string {
	if a == trace.Reject {
		return "rejected"
	}
	return "dropped"
}
