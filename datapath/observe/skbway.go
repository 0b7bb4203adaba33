package observe

import (
	"fmt"
	"strings"

	"slipway/datapath"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// passage is one hop in the making: a stage of one namespace, with the events
// that show it.
type passage struct {
	hop    trace.Hop
	events []sighting
	ended  []sighting // events about the packet's end here
	note   string     // what else shows it
}

func (p *passage) first() *sighting { return &p.events[0] }
func (p *passage) last() *sighting  { return &p.events[len(p.events)-1] }

// way is what a packet did in one direction.
type way struct {
	reply  bool
	list   []*passage
	ends   []sighting // events about its end, in order: Free, Consume, ICMPSend
	copies []*way     // that a switch sent where nobody took them
}

// end is the last passage; nil if there is none.
func (w *way) end() *passage {
	if len(w.list) == 0 {
		return nil
	}
	return w.list[len(w.list)-1]
}

// last is the time of the last passage's last event, on the kernel's clock.
func (w *way) last() int64 {
	if p := w.end(); p != nil {
		return p.last().TimeNs
	}
	return 0
}

// before is when the way's last passage before another way began; the packet's
// memory may be given back after the answer has left.
func (w *way) before(other *way, start int64) int64 {
	before := start
	for _, p := range w.list {
		if len(other.list) > 0 && p.first().TimeNs <= other.list[0].first().TimeNs {
			before = p.first().TimeNs
		}
	}
	return before
}

// hops numbers the passages and sets their times: since the start of all, and
// since the hop before.
func (w *way) hops(start, before int64, seq int) ([]trace.Hop, int) {
	var out []trace.Hop
	for _, p := range w.list {
		seq++
		h := p.hop
		h.Seq, h.TimeNs, h.SinceNs = seq, p.first().TimeNs-start, p.first().TimeNs-before
		h.TookNs = p.last().TimeNs - p.first().TimeNs
		for i := range p.events {
			h.Evidence = append(h.Evidence, p.events[i].String())
		}
		for i := range p.ended {
			h.Evidence = append(h.Evidence, p.ended[i].String())
		}
		if p.note != "" {
			h.Evidence = append(h.Evidence, p.note)
		}
		before = p.first().TimeNs
		out = append(out, h)
	}
	return out, seq
}

// reader makes ways out of sightings.
type reader struct {
	w    *World
	hits []decodedHit
}

// way groups one packet's sightings into passages.
func (r *reader) way(list []sighting, reply bool) *way {
	w := &way{reply: reply}
	var moving []sighting
	for _, s := range list {
		switch {
		case s.packet.IP.FragmentOffset > 0 || s.packet.Outer.FragmentOffset > 0:
			// The first fragment stands for all.
		case s.moves():
			moving = append(moving, s)
		default:
			w.ends = append(w.ends, s)
		}
	}
	main, copies := splitCopies(moving, w.ends)
	w.list = carried(passages(main))
	for _, c := range copies {
		list := passages(c.events)
		p := list[len(list)-1]
		p.hop.Action, p.hop.Reason = trace.Drop, "a copy for another MAC: goes no further here"
		p.ended = append(p.ended, c.end)
		w.copies = append(w.copies, &way{reply: reply, list: list})
	}
	r.netfilter(w)
	return w
}

// passages groups consecutive events of one stage.
func passages(list []sighting) []*passage {
	var out []*passage
	for _, s := range list {
		if n := len(out); n > 0 && out[n-1].takes(&s) {
			p := out[n-1]
			p.events = append(p.events, s)
			p.hop.Packet = s.traced()
			continue
		}
		out = append(out, newPassage(s))
	}
	return out
}

func newPassage(s sighting) *passage {
	p := &passage{events: []sighting{s}}
	p.hop = trace.Hop{
		Node: s.place.Node, Namespace: s.place.Namespace, Place: s.place.Label,
		Device: s.device(), Stage: s.stage(), Action: trace.Pass, Packet: s.traced(),
	}
	if p.hop.Node == "" {
		p.hop.Node = s.place.Label
	}
	return p
}

// takes reports whether an event belongs to the passage: the same stage of the
// same namespace, further on. A hook whose priorities begin again is a new one.
func (p *passage) takes(s *sighting) bool {
	l := p.last()
	if s.Inode != l.Inode || s.stage() != p.hop.Stage || s.device() != p.hop.Device || (s.life != l.life && !reassembled(l, s)) {
		return false
	}
	if s.Point == skbtrace.Hook {
		return l.Point == skbtrace.Hook && s.Priority > l.Priority && s.In == l.In && s.Out == l.Out
	}
	return l.Point != s.Point && order(l.Point) < order(s.Point)
}

// reassembled reports whether a packet is the one that a fragment became part
// of: connection tracking puts them together within a hook, in the memory of the
// fragment that came last (net/ipv4/ip_fragment.c, ip_frag_reasm).
func reassembled(part, whole *sighting) bool {
	more := func(s *sighting) bool { return s.packet.IP.MoreFragments || s.packet.Outer.MoreFragments }
	return part.Point == skbtrace.Hook && whole.Point == skbtrace.Hook && more(part) && !more(whole)
}

// order is the order of the two points at a device.
func order(p skbtrace.Point) int {
	switch p {
	case skbtrace.Rx, skbtrace.Queue:
		return 1
	default:
		return 2
	}
}

// stage is the stage of a trace that an event's point belongs to.
func (s *sighting) stage() trace.Stage {
	switch s.Point {
	case skbtrace.Hook:
		return trace.Stage(s.Hook)
	case skbtrace.Queue, skbtrace.Xmit:
		if s.place.Wire {
			return trace.Wire
		}
		return trace.Egress
	case skbtrace.Receive, skbtrace.Rx:
		if s.place.Wire {
			return trace.Wire
		}
		return trace.Ingress
	}
	return ""
}

// device is the device of a hop: of hooks the one that the packet came in by,
// or where there is none yet or it matters no more, goes out by.
func (s *sighting) device() string {
	if s.Point != skbtrace.Hook {
		return s.Device
	}
	switch trace.Stage(s.Hook) {
	case trace.Output, trace.Postrouting:
		return s.Out
	}
	return s.In
}

// traced is the packet in the form of traces, with its mark.
func (s *sighting) traced() datapath.Packet {
	p := s.packet.packet()
	p.Mark = s.Mark
	return p
}

// points are the kernel's names of the events.
var points = map[skbtrace.Point]string{
	skbtrace.Receive: "netif_receive_skb", skbtrace.Rx: "netif_rx", skbtrace.Queue: "net_dev_queue", skbtrace.Xmit: "net_dev_start_xmit",
	skbtrace.Free: "kfree_skb", skbtrace.Consume: "consume_skb", skbtrace.ICMPSend: "icmp_send",
}

// String names an event: "netif_rx veth1a2b3c4d", "nf forward cni0→flannel.1 -450".
func (s *sighting) String() string {
	name := points[s.Point]
	switch s.Point {
	case skbtrace.Hook:
		return fmt.Sprintf("nf %s %s→%s %d", s.Hook, s.In, s.Out, s.Priority)
	case skbtrace.Free:
		return strings.TrimSpace(name + " " + s.Reason + " " + s.Location)
	case skbtrace.Consume:
		return strings.TrimSpace(name + " " + s.Location)
	case skbtrace.ICMPSend:
		return fmt.Sprintf("%s %d/%d", name, s.ICMPType, s.ICMPCode)
	}
	return strings.TrimSpace(name + " " + s.Device)
}
