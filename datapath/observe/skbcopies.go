package observe

import (
	"slices"

	"slipway/datapath/skbtrace"
)

// copied is a copy that a switch sent to somebody who threw it away: its events
// from the switch on, and its end.
type copied struct {
	events []sighting
	end    sighting
}

// splitCopies takes out the copies that a switch sent to ports where nobody has
// the frame's MAC.
func splitCopies(moving, ends []sighting) (main []sighting, copies []copied) {
	isCopy := make([]bool, len(moving))
	for _, e := range ends {
		if e.Point != skbtrace.Free || e.Reason != "OTHERHOST" {
			continue
		}
		tail := tailOf(moving, e)
		if len(tail) == 0 || !switched(moving, tail) {
			continue
		}
		c := copied{end: e}
		for _, i := range tail {
			c.events = append(c.events, moving[i])
			isCopy[i] = true
		}
		copies = append(copies, c)
	}
	for i, s := range moving {
		if !isCopy[i] {
			main = append(main, s)
		}
	}
	return main, copies
}

// tailOf returns the events of a packet's life that led to an end, from the
// last device that sent it on.
func tailOf(moving []sighting, end sighting) []int {
	var tail []int
	for i, s := range moving {
		if s.life != end.life {
			continue
		}
		if s.Point == skbtrace.Queue || (s.Point == skbtrace.Xmit && !follows(moving, tail)) {
			tail = nil
		}
		tail = append(tail, i)
	}
	return tail
}

// follows reports whether the event before was the same device's queue.
func follows(moving []sighting, tail []int) bool {
	return len(tail) > 0 && moving[tail[len(tail)-1]].Point == skbtrace.Queue
}

// switched reports whether a tail begins at a switch's port, which a host that
// routes has chosen by address, and goes no further than the port's other end.
func switched(moving []sighting, tail []int) bool {
	from := &moving[tail[0]]
	if from.Point != skbtrace.Queue && from.Point != skbtrace.Xmit {
		return false
	}
	if slices.ContainsFunc(tail, func(i int) bool { return moving[i].Point == skbtrace.Hook }) {
		return false
	}
	for i := tail[0] - 1; i >= 0; i-- {
		if s := &moving[i]; s.Inode == from.Inode {
			return s.Point != skbtrace.Hook || s.Out != from.Device
		}
	}
	return false
}
