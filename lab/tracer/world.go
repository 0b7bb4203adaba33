package tracer

import (
	"slices"
	"time"

	"slipway/datapath/netfilter"
	"slipway/datapath/observe"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
	"slipway/internal/netns"
)

// world is what the observer needs to understand events.
func (s *session) world(events []skbtrace.Event, a answered) observe.World {
	w := observe.World{
		Places: map[uint64]trace.Place{}, Sender: s.view.Place(s.from.NetNS), Ports: s.ports(), Sent: s.predictedPacket(),
		Answer:  observe.Answer{Got: a.took > 0 && a.err == nil, Err: a.err},
		NoHooks: s.watcher != nil && s.watcher.skb != nil && !s.watcher.skb.Hooks(),
	}
	for _, e := range events {
		if _, known := w.Places[e.Inode]; known {
			continue
		}
		if name, ok := s.view.NamespaceByInode(e.Inode); ok {
			w.Places[e.Inode] = s.view.Place(name)
		}
	}
	return w
}

// ruleText finds a rule's text in what the kernel showed before the packet was
// sent.
func (s *session) ruleText(namespace, table, chain string, number int) string {
	rules, ok := s.rules[namespace]
	if !ok {
		if st, err := s.view.State(namespace); err == nil {
			rules, _ = netfilter.ParseState(st) // the prediction has complained
		}
		s.rules[namespace] = rules
	}
	if rules == nil {
		return ""
	}
	return rules.Text(table, chain, number)
}

// withRules lists the namespaces that have rules to trace, as far as their
// state is known.
func (s *session) withRules(names []string) []*netns.NS {
	read := s.view.Recorded().States
	var out []*netns.NS
	for _, n := range names {
		if st := read[n]; st != nil && len(st.RuleSave) == 0 && st.NFTables == "" {
			continue
		}
		if p := s.view.Place(n); p.Pod || p.Wire {
			continue
		}
		if ns, err := s.view.NS(n); err == nil {
			out = append(out, ns)
		}
	}
	return out
}

// pathDelay is how much longer than a kernel's own time a packet may be on its
// way: the underlay may be told to delay.
func (s *session) pathDelay() time.Duration {
	var sum time.Duration
	for _, g := range s.t.st.Snapshot.Segments {
		sum += time.Duration(g.Delay)
	}
	return 4 * sum // there and back, into a segment and out of it
}

// wasLost reports whether the events say how the packet or its answer was lost.
// That the kernel gave up some packet does not: it may be one that was sent again.
func (s *session) wasLost(events []skbtrace.Event) bool {
	return gaveUp(events) && observe.FromSKB(events, nil, s.world(events, answered{})).Verdict != trace.Unknown
}

// gaveUp reports whether a kernel gave some packet up.
func gaveUp(events []skbtrace.Event) bool {
	return slices.ContainsFunc(events, func(e skbtrace.Event) bool { return e.Point == skbtrace.Free })
}
