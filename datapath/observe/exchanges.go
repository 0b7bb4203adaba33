package observe

import (
	"slices"
	"time"

	"slipway/datapath"
	"slipway/datapath/skbtrace"
)

// Exchanges sorts the events of live traffic into exchanges, each the way of
// one packet that fits sent (zero parts match everything) and of its answer. An
// exchange with an event within the last quiet time may go on: its events are in
// rest, together with young ones that belong to no exchange yet.
func Exchanges(events []skbtrace.Event, sent datapath.Packet, ports Ports, quiet time.Duration) (groups [][]skbtrace.Event, rest []skbtrace.Event) {
	if len(events) == 0 {
		return nil, nil
	}
	w := &World{Ports: ports.orDefault()}
	all := w.sightings(events)
	now := all[len(all)-1].TimeNs
	young := func(e skbtrace.Event) bool { return now-e.TimeNs < quiet.Nanoseconds() }
	for {
		request, reply := choose(all, sent)
		if len(request) == 0 {
			break
		}
		group := slices.Concat(request, reply)
		slices.SortStableFunc(group, func(a, b sighting) int { return int(a.TimeNs - b.TimeNs) })
		if young(group[len(group)-1].Event) {
			rest = append(rest, eventsOf(group)...)
		} else {
			groups = append(groups, eventsOf(group))
		}
		all = without(all, group)
	}
	for _, s := range all {
		if young(s.Event) {
			rest = append(rest, s.Event)
		}
	}
	return groups, rest
}

func eventsOf(list []sighting) []skbtrace.Event {
	out := make([]skbtrace.Event, len(list))
	for i, s := range list {
		out[i] = s.Event
	}
	return out
}

// without removes the sightings of a group, both in order of time.
func without(all, group []sighting) []sighting {
	type point struct {
		skb  uint64
		time int64
		at   skbtrace.Point
		prio int
	}
	key := func(s sighting) point { return point{s.Skb, s.TimeNs, s.Point, s.Priority} }
	gone := map[point]bool{}
	for _, s := range group {
		gone[key(s)] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(s sighting) bool { return gone[key(s)] })
}
