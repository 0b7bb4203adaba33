package tracer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/datapath/trace"
	"slipway/lab/remote"
)

// tell says whose clocks an observation's times are by. A time between two hosts is
// told nowhere: their clocks are not known well enough.
func (e *elsewhere) tell(o *trace.Observation, s *remote.Sight) {
	within := map[string]int64{}
	for _, c := range s.Clocks {
		within[c.Host] = c.WithinNs
	}
	var hosts []string
	lists := [][]trace.Hop{o.Request, o.Reply, o.Copies}
	for _, hops := range lists {
		for _, h := range hops {
			if !slices.Contains(hosts, h.Node) {
				hosts = append(hosts, h.Node)
			}
		}
	}
	if len(hosts) < 2 {
		return
	}
	before, last := "", trace.Hop{}
	for _, hops := range lists {
		for i := range hops {
			h := &hops[i]
			if h.Clock, h.WithinNs = h.Node, within[h.Node]; h.Clock != before {
				h.SinceNs = 0
			}
			before = h.Clock
			if h.TimeNs+h.TookNs >= last.TimeNs+last.TookNs {
				last = *h
			}
		}
	}
	if first := slices.Concat(lists...)[0]; last.Clock != first.Clock {
		o.LatencyNs = 0
	}
	e.t.Clocks = s.Clocks
	var parts []string
	for _, c := range s.Clocks {
		if c.Host != e.from.Node && slices.Contains(hosts, c.Host) {
			parts = append(parts, fmt.Sprintf("%s by %v, to %v", c.Host, time.Duration(c.AheadNs).Round(time.Microsecond), time.Duration(c.WithinNs).Round(time.Microsecond)))
		}
	}
	e.t.Notes = append(e.t.Notes, fmt.Sprintf("hosts follow each other as the packet went, not by their clocks, and no time between two hosts is told; ahead of %s's clock is that of %s", e.from.Node, strings.Join(parts, ", ")))
}
