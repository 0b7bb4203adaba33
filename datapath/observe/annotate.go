package observe

import (
	"fmt"
	"slices"

	"slipway/datapath"
	"slipway/datapath/trace"
)

// Annotate writes into the comments of captured packets which hop of a trace
// each belongs to, and what was done to it since the device before. The lists
// are request, reply and copies, in any order; packets of no hop stay as they
// are.
func Annotate(events []Event, lists ...[]trace.Hop) {
	used := map[[2]int]bool{}
	for i := range events {
		for l, hops := range lists {
			h := hopOf(&events[i], hops, func(n int) bool { return used[[2]int{l, n}] })
			if h < 0 {
				continue
			}
			used[[2]int{l, h}] = true
			events[i].Comments = append(events[i].Comments, comments(hops, h)...)
			break
		}
	}
}

// HopOf finds the hop that a captured packet belongs to: the passage of a
// device, in its direction, with the same headers; -1 if there is none. Where a
// packet passes a device twice unchanged, it is the first.
func HopOf(e *Event, hops []trace.Hop) int {
	return hopOf(e, hops, func(int) bool { return false })
}

func hopOf(e *Event, hops []trace.Hop, used func(int) bool) int {
	packet := e.Packet.packet()
	for i := range hops {
		h := &hops[i]
		if !used(i) && h.Place == e.Place.Label && h.Device == e.Device && e.Direction.fits(h) && sameHeaders(packet, h.Packet) {
			return i
		}
	}
	return -1
}

// fits reports whether a hop goes that way. A switch's port may be passed
// either way; what the packet came by shows in the evidence.
func (d Direction) fits(h *trace.Hop) bool {
	switch h.Stage {
	case trace.Ingress:
		return d == In
	case trace.Egress:
		return d == Out
	case trace.Wire:
		return sends(h) == (d == Out)
	}
	return false
}

// sends reports whether a wire hop is a port that sent the packet.
func sends(h *trace.Hop) bool {
	return slices.ContainsFunc(h.Evidence, func(e string) bool {
		return e == "net_dev_queue "+h.Device || e == "net_dev_start_xmit "+h.Device || e == "af_packet "+h.Device+" "+string(Out)
	})
}

// sameHeaders compares what one device sees of a packet; the mark is not in it.
func sameHeaders(a, b datapath.Packet) bool {
	if (a.Outer == nil) != (b.Outer == nil) || (a.Outer != nil && (a.Outer.Src != b.Outer.Src || a.Outer.Dst != b.Outer.Dst)) {
		return false
	}
	return a.Proto == b.Proto && a.Source() == b.Source() && a.Destination() == b.Destination() && a.TTL == b.TTL && a.ID == b.ID && a.Flags == b.Flags
}

// comments describe a hop, and before it the hooks since the device before.
func comments(hops []trace.Hop, at int) []string {
	from := at
	for from > 0 && !onDevice(&hops[from-1]) {
		from--
	}
	var out []string
	for i := from; i <= at; i++ {
		h := &hops[i]
		text := fmt.Sprintf("hop %d: %s", h.Seq, h.At())
		if h.Action != trace.Pass && h.Action != "" {
			text += ", " + string(h.Action)
		}
		if h.Rule != "" {
			text += " by " + h.Rule
		}
		if h.Reason != "" {
			text += ": " + h.Reason
		}
		out = append(out, text)
	}
	// What happened to it behind the last device would be told nowhere.
	for i := at + 1; i < len(hops) && !slices.ContainsFunc(hops[at+1:], isOnDevice); i++ {
		out = append(out, fmt.Sprintf("then hop %d: %s, %s", hops[i].Seq, hops[i].At(), hops[i].Action))
	}
	return out
}

func isOnDevice(h trace.Hop) bool { return onDevice(&h) }

func onDevice(h *trace.Hop) bool {
	return h.Stage == trace.Ingress || h.Stage == trace.Egress || h.Stage == trace.Wire
}
