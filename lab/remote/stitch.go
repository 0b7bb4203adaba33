package remote

import (
	"slices"
	"time"

	"slipway/datapath/observe"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
)

// numbers of namespaces have 32 bits (struct ns_common, include/linux/ns_common.h):
// above them is which host it is.
const hostShift = 32

// hostNumber numbers hosts from 1.
func (w *Watch) hostNumber(host string) uint64 {
	return uint64(slices.Index(ordered.Keys(w.party.guests), host)) + 1
}

func (w *Watch) spaceNumber(host string, inode uint64) uint64 {
	if inode == 0 {
		return 0 // of a packet without a device
	}
	return w.hostNumber(host)<<hostShift | inode
}

// join makes one machine's events of those of all hosts, in the order in which they
// must have happened.
func (w *Watch) join() *Sight {
	s := &Sight{Places: w.places()}
	type key struct {
		host string
		skb  uint64
	}
	number := map[key]uint64{}
	byHost := map[string][]skbtrace.Event{}
	var crossings []observe.Crossing
	for _, host := range ordered.Keys(w.talks) {
		events, _ := w.talks[host].seen()
		events = w.own(host, events)
		byHost[host] = events
		for _, e := range events {
			if w.isWire(host, &e) && (e.Point == skbtrace.Xmit || e.Point == skbtrace.Rx || e.Point == skbtrace.Receive) {
				crossings = append(crossings, observe.Crossing{
					Host: host, TimeNs: e.TimeNs, Sent: e.Point == skbtrace.Xmit, Packet: observe.Decode(observe.LinkRaw, e.Data, observe.Ports(w.o.Ports)),
				})
			}
		}
	}
	s.Clocks = observe.Align(w.clocks, crossings)
	for _, c := range s.Clocks {
		for _, e := range byHost[c.Host] {
			k := key{c.Host, e.Skb}
			if number[k] == 0 {
				number[k] = uint64(len(number)) + 1
			}
			e.Skb, e.Inode, e.TimeNs = number[k], w.spaceNumber(c.Host, e.Inode), e.TimeNs-c.AheadNs
			if w.observer == ByTracepoints && e.Point == skbtrace.Hook {
				continue // not all hosts have them
			}
			s.Events = append(s.Events, e)
		}
	}
	slices.SortStableFunc(s.Events, func(a, b skbtrace.Event) int { return int(a.TimeNs - b.TimeNs) })
	return s
}

// own leaves out what happened to a packet after it had left the host by a wire:
// that its memory was given back is no loss; and where hosts share a kernel, it is
// another's by then.
func (w *Watch) own(host string, events []skbtrace.Event) []skbtrace.Event {
	left := map[uint64]bool{}
	out := make([]skbtrace.Event, 0, len(events))
	for _, e := range events {
		switch {
		case e.Point == skbtrace.Xmit && w.isWire(host, &e):
			left[e.Skb] = true
		case e.Point == skbtrace.Consume || e.Point == skbtrace.Free:
			gone := left[e.Skb] && (e.Point == skbtrace.Consume || e.Device == "" || e.Reason == "NOT_SPECIFIED")
			delete(left, e.Skb)
			if gone {
				continue
			}
		case left[e.Skb]:
			delete(left, e.Skb)
		}
		out = append(out, e)
	}
	return out
}

// isWire reports whether an event is at a device by which packets leave the host.
func (w *Watch) isWire(host string, e *skbtrace.Event) bool {
	seen := w.party.guests[host].seen
	if seen == nil || e.Inode != seen.Root || e.Device == "" {
		return false
	}
	return seen.leadsOut(e.Device)
}

// leadsOut reports whether what a device of the host itself sends leaves the host.
func (s *Seen) leadsOut(device string) bool {
	root := s.Spaces[s.Root]
	if root == nil || root.State == nil {
		return false
	}
	d := root.State.Device(device)
	_, inside := root.Peers[device]
	return d != nil && !inside && leadsOut(d)
}

// places are all namespaces that were seen, by their numbers in a [Sight].
func (w *Watch) places() map[uint64]trace.Place {
	out := map[uint64]trace.Place{}
	for name, p := range w.network.Places {
		if st := w.network.States[name]; st != nil && w.party.guests[p.Node] != nil && !p.Wire {
			out[w.spaceNumber(p.Node, st.Inode)] = p
		}
	}
	return out
}

// addRest adds what an agent tells at the end.
func (w *Watch) addRest(s *Sight, host string, r *settled) {
	s.Lost += r.Lost
	s.RulesLost += r.RulesLost
	for _, h := range r.Hits {
		h.Inode = w.spaceNumber(host, h.Inode)
		s.Hits = append(s.Hits, h)
	}
	for _, p := range r.Packets {
		place := s.Places[w.spaceNumber(host, p.Space)]
		s.Packets = append(s.Packets, observe.Event{
			Time: p.Time, Place: observe.Place{Label: place.Label, Node: place.Node}, Device: p.Device, Direction: p.Direction,
			OtherHost: p.OtherHost, LinkType: p.Link, Data: p.Data, WireLength: p.WireLength, PartialChecksum: p.PartialChecksum,
			Packet: observe.Decode(p.Link, p.Data, observe.Ports(w.o.Ports)),
		})
	}
}

// sequence is a connection's initial sequence number, as the sender's host saw it.
func (w *Watch) sequence(match observe.Match, r *settled) *uint32 {
	of := func(link observe.LinkType, data []byte) *uint32 {
		ip := observe.Decode(link, data, observe.Ports(w.o.Ports)).IP
		if ip.TCP != nil && ip.TCP.SYN && !ip.TCP.ACK && ip.SrcPort == match.Client.Port() {
			return &ip.TCP.Seq
		}
		return nil
	}
	events, _ := w.talks[w.sender].seen()
	for _, e := range events {
		if n := of(observe.LinkRaw, e.Data); n != nil {
			return n
		}
	}
	for _, p := range r.Packets {
		if n := of(p.Link, p.Data); n != nil {
			return n
		}
	}
	return nil
}

// orderPackets gives packets the sender's times. Where they are all that there is,
// they say themselves how clocks differ.
func (w *Watch) orderPackets(s *Sight) {
	mono := func(e *observe.Event) int64 { return e.Time.UnixNano() - w.walls[e.Place.Node] }
	if w.observer == ByAFPacket {
		var crossings []observe.Crossing
		for i := range s.Packets {
			e := &s.Packets[i]
			g := w.party.guests[e.Place.Node]
			if g == nil || g.seen == nil || e.Place.Label != e.Place.Node || !g.seen.leadsOut(e.Device) {
				continue
			}
			crossings = append(crossings, observe.Crossing{Host: e.Place.Node, TimeNs: mono(e), Sent: e.Direction == observe.Out, Packet: e.Packet})
		}
		s.Clocks = observe.Align(w.clocks, crossings)
	}
	ahead := map[string]int64{}
	for _, c := range s.Clocks {
		ahead[c.Host] = c.AheadNs
	}
	for i := range s.Packets {
		e := &s.Packets[i]
		e.Time = time.Unix(0, mono(e)-ahead[e.Place.Node]+w.walls[w.sender])
	}
	slices.SortStableFunc(s.Packets, func(a, b observe.Event) int { return a.Time.Compare(b.Time) })
}
