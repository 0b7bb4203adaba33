package observe

import (
	"errors"
	"slices"

	"slipway/datapath"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// World is what events need to be understood: where they happened, what was
// sent, and what came of it.
type World struct {
	Places map[uint64]trace.Place // by the inode of the network namespace
	Sender trace.Place            // that sent the packet
	Ports  Ports                  // the tunnels'; zero fields stand for DefaultPorts
	// Sent is the packet; zero parts match everything.
	Sent datapath.Packet
	// Answer is what the sender got.
	Answer Answer
	// Live: the packet was not ours, so that the answer's arrival is known from
	// its events alone.
	Live bool
	// NoHooks: the kernel has no programs for netfilter's hooks, whose absence says
	// nothing.
	NoHooks bool
	// Rule returns a rule's text as iptables-save shows it, "-A …", and for
	// number 0 the chain's policy, "policy ACCEPT"; empty if there is none. It is
	// nil if no rule hits were recorded.
	Rule func(namespace, table, chain string, number int) string
	Lost int // events that the kernel had no room for
}

// Answer is what a sender got back.
type Answer struct {
	Got bool
	// Err is the system's error, such as ECONNREFUSED, of sending or waiting;
	// nil also where nothing came at all.
	Err error
}

// refused is the system's error; that nobody answered in time is none.
func (a Answer) refused() error {
	if errors.Is(a.Err, ErrNoAnswer) {
		return nil
	}
	return a.Err
}

// skbStages are what BPF programs see.
var skbStages = []trace.Stage{
	trace.Egress, trace.Ingress, trace.Wire, trace.Prerouting, trace.Input, trace.Forward, trace.Output, trace.Postrouting, trace.Deliver,
}

// tracepointStages are what they see without netfilter's hooks.
var tracepointStages = []trace.Stage{trace.Egress, trace.Ingress, trace.Wire, trace.Deliver}

// FromSKB turns the kernel's events into the way of one packet and of its
// answer. Every hop rests on events, which it names. What no event shows is not
// there, and how the packet ended is unknown unless events say it.
func FromSKB(events []skbtrace.Event, hits []ruletrace.Hit, w World) trace.Observation {
	w.Ports, w.Answer.Err = w.Ports.orDefault(), w.Answer.refused()
	o := trace.Observation{Observer: "bpf", Observes: skbStages, Rules: w.Rule != nil, Lost: w.Lost}
	if w.NoHooks {
		o.Observer, o.Observes, o.Rules = "tracepoints", tracepointStages, false
	}
	if w.Lost > 0 {
		o.Notes = append(o.Notes, lostNote(w.Lost))
	}
	all := w.sightings(events)
	request, reply := choose(all, w.sent(all))
	r := &reader{w: &w, hits: w.decodeHits(hits)}
	first := int64(0)
	if len(request) > 0 {
		first = request[0].TimeNs
	} else if len(reply) > 0 {
		first = reply[0].TimeNs
	}
	there, back := r.way(request, false), r.way(reply, true)
	r.deliveries(there, back)
	v := verdict{w: &w, there: there, back: back}
	v.judge()
	n := 0
	o.Request, n = there.hops(first, first, 0)
	o.Reply, n = back.hops(first, there.before(back, first), n)
	for _, c := range slices.Concat(there.copies, back.copies) {
		var hops []trace.Hop
		hops, n = c.hops(first, c.list[0].first().TimeNs, n)
		o.Copies = append(o.Copies, hops...)
	}
	o.Verdict, o.Cause = v.verdict, v.cause
	o.Notes = append(o.Notes, v.notes...)
	o.LatencyNs = max(there.last(), back.last()) - first
	if len(o.Request)+len(o.Reply) == 0 {
		o.LatencyNs = 0
	}
	return o
}

func (p Ports) orDefault() Ports {
	if p.UDP == 0 {
		p.UDP = DefaultPorts.UDP
	}
	if p.VXLAN == 0 {
		p.VXLAN = DefaultPorts.VXLAN
	}
	return p
}

// sighting is an event with what its packet says and where it was.
type sighting struct {
	skbtrace.Event
	packet Decoded
	place  trace.Place
	// life tells apart packets that used the same memory one after the other.
	life int
}

// sightings decodes events and puts them in order. Events of one skb are in
// order by themselves; between CPUs the monotonic clock decides.
func (w *World) sightings(events []skbtrace.Event) []sighting {
	out := make([]sighting, 0, len(events))
	for _, e := range events {
		out = append(out, sighting{Event: e, packet: Decode(LinkRaw, e.Data, w.Ports)})
	}
	slices.SortStableFunc(out, func(a, b sighting) int { return int(a.TimeNs - b.TimeNs) })
	lives := map[uint64]int{}
	inode := map[uint64]uint64{}
	next := 0
	for i := range out {
		s := &out[i]
		if lives[s.Skb] == 0 {
			next++
			lives[s.Skb] = next
		}
		s.life = lives[s.Skb]
		if s.Inode == 0 {
			s.Inode = inode[s.Skb] // a packet in a socket's queue has no device
		}
		inode[s.Skb] = s.Inode
		s.place = w.place(s.Inode)
		if s.ends() {
			delete(lives, s.Skb)
			delete(inode, s.Skb)
		}
	}
	return out
}

// place describes a namespace, also one that nobody named.
func (w *World) place(inode uint64) trace.Place {
	if p, ok := w.Places[inode]; ok {
		return p
	}
	name := "unknown"
	if inode != 0 {
		name = unnamed(inode)
	}
	return trace.Place{Label: name, Namespace: name}
}

// ends reports whether the packet's memory is given back.
func (s *sighting) ends() bool { return s.Point == skbtrace.Free || s.Point == skbtrace.Consume }

// moves reports whether the event says where a packet is, not how it ended.
func (s *sighting) moves() bool { return !s.ends() && s.Point != skbtrace.ICMPSend }
