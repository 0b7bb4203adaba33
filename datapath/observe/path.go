package observe

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// ChangeKind says what happened to a packet between two sightings.
type ChangeKind string

// The kinds of changes.
const (
	DNAT          ChangeKind = "dnat"   // the destination was rewritten
	SNAT          ChangeKind = "snat"   // the source was rewritten
	UnDNAT        ChangeKind = "undnat" // in a reply, the source was put back
	UnSNAT        ChangeKind = "unsnat" // in a reply, the destination was put back
	Encap         ChangeKind = "encap"
	Decap         ChangeKind = "decap"
	Routed        ChangeKind = "ttl"      // the TTL was decremented: a router forwarded it
	CarrierRouted ChangeKind = "outerttl" // a router forwarded the carrying packet
)

// Change is one difference from the sighting before.
type Change struct {
	Kind     ChangeKind
	From, To string
}

// Step is one sighting on a packet's way, with what changed since the one before.
type Step struct {
	Seq   int // from 1, over request and reply
	Reply bool
	Event
	SinceStart time.Duration // since the request's first sighting
	Since      time.Duration // since the step before, zero for the first
	Changes    []Change
	// DeadEnd is set where the frame is for another MAC and this place was not
	// seen to do anything with it: a copy flooded by a switch, or a drop.
	DeadEnd bool
}

// Path turns the events of one probe into steps, the request's and then the
// reply's, each in the order in which they happened. Repeats of the request
// (TCP sends its SYN again after a second) are left out: it is the path of
// one packet.
func Path(events []Event) []Step {
	var request, reply []Event
	turn := &turn{seen: map[conversation]bool{}}
	for _, e := range events {
		if ip := e.Packet.IP; !ip.Valid() || (ip.ICMP != nil && ip.ICMP.Type == layers.ICMPv4TypeRedirect) {
			continue // a redirect is advice for later packets, not a reply
		}
		if turn.isReply(e.Packet.IP) {
			reply = append(reply, e)
		} else {
			request = append(request, e)
		}
	}
	if len(request) == 0 && len(reply) == 0 {
		return nil
	}
	request, reply = onePacket(request), onePacket(reply)
	steps := make([]Step, 0, len(request)+len(reply))
	for _, e := range request {
		steps = append(steps, Step{Event: e})
	}
	for _, e := range reply {
		steps = append(steps, Step{Event: e, Reply: true})
	}
	for i := range steps {
		steps[i].Seq = i + 1
		steps[i].SinceStart = steps[i].Time.Sub(steps[0].Time)
		if i > 0 {
			steps[i].Since = steps[i].Time.Sub(steps[i-1].Time)
		}
		if i > 0 && steps[i].Reply == steps[i-1].Reply {
			steps[i].Changes = changes(steps[i-1].Packet, steps[i].Packet, steps[i].Reply)
		}
		steps[i].DeadEnd = deadEnd(steps, i)
	}
	return steps
}

// conversation is who talks to whom in one direction.
type conversation struct {
	protocol uint8
	src, dst netip.AddrPort
}

// turn tells requests from replies.
type turn struct{ seen map[conversation]bool }

// isReply reports whether a packet goes back. TCP and ICMP say so themselves;
// a datagram is a reply if it is the reverse of a request that was seen: NAT
// maps the two directions onto each other at every point of the way.
func (t *turn) isReply(p IPv4) bool {
	switch {
	case p.TCP != nil:
		return p.TCP.ACK
	case p.ICMP != nil:
		return p.ICMP.IsError() || p.ICMP.Type == layers.ICMPv4TypeEchoReply
	}
	if t.seen[conversation{p.Protocol, p.Destination(), p.Source()}] {
		return true
	}
	t.seen[conversation{p.Protocol, p.Source(), p.Destination()}] = true
	return false
}

// onePacket keeps the sightings of the first packet. Its IP identification
// stays with it through NAT and forwarding; most repeats have another. Those of
// SYN-ACKs have not, and begin where the first was sent. Only an ICMP error on
// the way takes over.
func onePacket(events []Event) []Event {
	var out []Event
	for i, e := range events {
		if i > 0 && e.repeats(events[0]) {
			break
		}
		if first := events[0].Packet.IP; e.Packet.IP.ID == first.ID || e.Packet.IP.Protocol != first.Protocol {
			out = append(out, e)
		}
	}
	return out
}

// repeats reports whether a packet is sent once more in the place that sent it
// first, and did not come around to it in a loop.
func (e Event) repeats(first Event) bool {
	return e.Direction == Out && first.Direction == Out && e.Place.Label == first.Place.Label && e.Device == first.Device &&
		e.Packet.Encap == NoEncap && e.Packet.IP.ID == first.Packet.IP.ID && e.Packet.IP.TTL == first.Packet.IP.TTL
}

// changes compares two sightings of one packet.
func changes(a, b Decoded, reply bool) []Change {
	var out []Change
	add := func(kind ChangeKind, from, to string) {
		if from != to {
			out = append(out, Change{Kind: kind, From: from, To: to})
		}
	}
	source, destination := SNAT, DNAT
	if reply {
		source, destination = UnDNAT, UnSNAT
	}
	if a.IP.Protocol == b.IP.Protocol {
		add(destination, endpoint(a.IP, a.IP.Destination()), endpoint(b.IP, b.IP.Destination()))
		add(source, endpoint(a.IP, a.IP.Source()), endpoint(b.IP, b.IP.Source()))
	}
	switch {
	case a.Encap == b.Encap && a.Encap != NoEncap:
		add(CarrierRouted, fmt.Sprint(a.Outer.TTL), fmt.Sprint(b.Outer.TTL))
	case a.Encap != b.Encap:
		if a.Encap != NoEncap {
			add(Decap, string(a.Encap), "")
		}
		if b.Encap != NoEncap {
			add(Encap, "", string(b.Encap))
		}
	}
	if b.IP.TTL < a.IP.TTL {
		add(Routed, fmt.Sprint(a.IP.TTL), fmt.Sprint(b.IP.TTL))
	}
	return out
}

// deadEnd reports whether the frame of a step goes to another MAC and nothing
// more was seen of it in that place.
func deadEnd(steps []Step, i int) bool {
	s := steps[i]
	if s.Direction != In || !s.OtherHost {
		return false
	}
	for _, later := range steps[i+1:] {
		if later.Reply == s.Reply && later.Place.Label == s.Place.Label {
			return false
		}
	}
	return true
}
