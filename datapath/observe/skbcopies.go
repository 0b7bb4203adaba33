package observe

import (
	"slices"

	"slipway/datapath/skbtrace"
)

// copied is a flooded copy: its events from the switch on, and its end.
type copied struct {
	events []sighting
	end    sighting
}

// splitCopies takes the copies out that a switch flooded and somebody threw
// away because they were for another MAC. If nothing else of the packet goes on
// from the switch, one of them was its own end.
func splitCopies(moving, ends []sighting) (main []sighting, copies []copied) {
	isCopy := make([]int, len(moving)) // index into copies from 1
	for _, e := range ends {
		if e.Point != skbtrace.Free || e.Reason != "OTHERHOST" {
			continue
		}
		tail := tailOf(moving, e)
		if len(tail) == 0 {
			continue
		}
		c := copied{end: e}
		for _, i := range tail {
			c.events = append(c.events, moving[i])
			isCopy[i] = len(copies) + 1
		}
		copies = append(copies, c)
	}
	own := 0
	for n := range copies {
		if !goesOn(moving, isCopy, &copies[n].events[0]) {
			own = n + 1
			break
		}
	}
	for i, s := range moving {
		if isCopy[i] == 0 || isCopy[i] == own {
			main = append(main, s)
		}
	}
	if own > 0 {
		copies = slices.Delete(copies, own-1, own)
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

// goesOn reports whether something of the packet that is no copy was seen after
// it came to the switch that made a copy: another port that sent it, the switch
// itself, or anything behind.
func goesOn(moving []sighting, isCopy []int, from *sighting) bool {
	arrival := -1
	for i := range moving {
		s := &moving[i]
		if s.TimeNs > from.TimeNs {
			break
		}
		if s.Inode == from.Inode && (s.Point == skbtrace.Receive || s.Point == skbtrace.Rx) {
			arrival = i
		}
	}
	for i := arrival + 1; i < len(moving); i++ {
		s := &moving[i]
		if isCopy[i] != 0 || (s.Inode == from.Inode && s.Point == skbtrace.Hook) {
			continue
		}
		if s.Inode != from.Inode || arrival < 0 || s.Device != moving[arrival].Device {
			return true
		}
	}
	return false
}
