package capture

import (
	"slices"

	"slipway/datapath/observe"
)

// newSummary has every place and device that is listened at.
func newSummary(lab string, o Options, sources []source) *Summary {
	s := &Summary{Lab: lab, Filter: o.Filter.Expression, SnapLen: o.Filter.SnapLen}
	for _, src := range sources {
		p := PlaceSummary{Place: src.place.Label, Devices: []DeviceSummary{}}
		for _, d := range src.devices {
			p.Devices = append(p.Devices, DeviceSummary{Device: d.Name})
		}
		s.Places = append(s.Places, p)
	}
	return s
}

// tally finds the figures of a device by name, as there are too many packets to
// look through lists for each.
type tally struct {
	summary *Summary
	at      map[deviceKey][2]int // places, devices
}

type deviceKey struct{ place, device string }

func newTally(s *Summary) *tally {
	t := &tally{summary: s, at: map[deviceKey][2]int{}}
	for i, p := range s.Places {
		for j, d := range p.Devices {
			t.at[deviceKey{p.Place, d.Device}] = [2]int{i, j}
		}
	}
	return t
}

// add counts a packet.
func (t *tally) add(e observe.Event) {
	size := int64(max(e.WireLength, len(e.Data)))
	t.summary.Packets++
	t.summary.Bytes += size
	key := deviceKey{e.Place.Label, e.Device}
	at, ok := t.at[key]
	if !ok { // made after the capture began
		i := t.summary.index(e.Place.Label)
		p := &t.summary.Places[i]
		at = [2]int{i, len(p.Devices)}
		p.Devices = append(p.Devices, DeviceSummary{Device: e.Device})
		t.at[key] = at
	}
	d := &t.summary.Places[at[0]].Devices[at[1]]
	d.Packets++
	d.Bytes += size
}

// index finds a place; events come only from places that are listened in.
func (s *Summary) index(label string) int {
	return slices.IndexFunc(s.Places, func(p PlaceSummary) bool { return p.Place == label })
}

// drops takes over what the kernel counted.
func (s *Summary) drops(c counted) {
	s.Dropped = c.Dropped()
	for label, n := range c.DroppedIn() {
		if i := s.index(label); i >= 0 {
			s.Places[i].Dropped = n
		}
	}
}
