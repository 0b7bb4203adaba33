package tracer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"slipway/datapath"
	"slipway/datapath/observe"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/topology"
)

// send fires the probe under observation.
func (s *session) send(ctx context.Context) error {
	if err := s.watch(); err != nil {
		return err
	}
	w := s.watcher
	got := make(chan answered, 1)
	if err := s.probe.Fire(); err != nil {
		got <- answered{err: err} // the kernel refused at once: what it did until then was seen
	} else {
		ctx, cancel := context.WithTimeout(ctx, s.timeout())
		defer cancel()
		go func() {
			took, err := s.probe.Wait(ctx)
			got <- answered{took, err}
		}()
	}
	if w.skb != nil {
		return s.bySKB(ctx, w, got)
	}
	return s.byCapture(ctx, w, got)
}

func (s *session) timeout() time.Duration {
	if s.r.Timeout > 0 {
		return s.r.Timeout
	}
	return defaultTimeout
}

// Quiet times: how long nothing must come before a packet's way is taken to be
// complete. After the answer only what the kernel does on its way back from
// delivering it is missing; after a drop, whatever the drop sets off.
const (
	quietAnswered = 3 * time.Millisecond
	quietDropped  = 60 * time.Millisecond
)

// bySKB collects events until the exchange is over.
func (s *session) bySKB(ctx context.Context, w *watcher, got <-chan answered) error {
	events, a, err := s.collect(ctx, w, got)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	world := s.world(events, a)
	world.Lost = w.skb.Lost()
	var hits []ruletrace.Hit
	if w.rules != nil {
		if hits, err = w.rules.Hits(0); err != nil {
			return err
		}
		if lost := w.rules.Lost(); lost > 0 {
			s.notes = append(s.notes, fmt.Sprintf("rules are not named: the kernel had no room for what it logged, %d times", lost))
		} else {
			world.Rule = s.ruleText
		}
	}
	o := observe.FromSKB(events, hits, world)
	s.observation, s.answer = &o, a.took
	if w.capture == nil {
		return nil
	}
	s.packets, err = w.capture.Collect(ctx, s.probe.Match, 0)
	return err
}

// collect reads events until the sender has its answer and nothing more comes,
// until it is clear how the packet was lost, or until the time is over: one that
// waits for a neighbour is given up only after seconds.
func (s *session) collect(ctx context.Context, w *watcher, got <-chan answered) ([]skbtrace.Event, answered, error) {
	until, stop := context.WithCancel(ctx)
	defer stop()
	over := make(chan answered, 1)
	go func() {
		over <- <-got
		stop()
	}()
	var all []skbtrace.Event
	for until.Err() == nil && !s.wasLost(all) {
		events, err := w.skb.Collect(until, quietDropped+s.pathDelay(), nil)
		all = append(all, events...)
		if err != nil {
			return all, answered{}, err
		}
	}
	events, err := w.skb.Collect(ctx, quietAnswered, nil)
	all = append(all, events...)
	select {
	case a := <-over:
		return all, a, err
	default: // dropped, and the sender still waits
		return all, answered{}, err
	}
}

// place describes namespaces for the packet sockets.
func (s *session) places(names []string) []observe.Place {
	var out []observe.Place
	for _, n := range names {
		ns, err := s.view.NS(n)
		if err != nil {
			continue // watch has opened it before
		}
		p := s.view.Place(n)
		out = append(out, observe.Place{Label: p.Label, Node: p.Node, Wire: p.Wire, NS: ns})
	}
	return out
}

func (s *session) ports() observe.Ports {
	n := s.t.st.Snapshot.Network
	out := observe.Ports{VXLAN: uint16(n.VXLAN.Port)} //nolint:gosec // checked by the cluster file
	if n.Mode == topology.FlannelUDP {                // looking into its datagrams takes longer to prepare
		out.UDP = uint16(n.UDP.Port) //nolint:gosec // likewise
	}
	return out
}

// ruleFlows select the probe wherever it was rewritten before: by what is left
// alone, the client's port or the echo's identifier; and, as a masquerade may
// choose another port, by where it may be going. The latter select others'
// packets too, which are told apart later.
func (s *session) ruleFlows() []datapath.Flow {
	f := s.flow()
	out := []datapath.Flow{{Proto: f.Proto, Src: netip.AddrPortFrom(netip.Addr{}, f.Src.Port()), ICMPID: f.ICMPID}}
	add := func(dst netip.AddrPort) {
		flow := datapath.Flow{Proto: f.Proto, Dst: dst}
		if dst.IsValid() && dst.Port() != 0 && len(out) < maxRuleFlows && !slices.Contains(out, flow) {
			out = append(out, flow)
		}
	}
	add(f.Dst)
	for _, b := range s.prediction.Branches {
		add(b.Endpoint)
	}
	return out
}

// maxRuleFlows bounds what every packet of a namespace is compared with.
const maxRuleFlows = 8

// flow selects the probe. Its source address is that which routing chooses, so
// it is known from the prediction if at all.
func (s *session) flow() datapath.Flow {
	p := s.predictedPacket()
	f := datapath.Flow{Proto: p.Proto, Src: p.Source(), Dst: p.Destination()}
	if p.ICMP != nil {
		f.ICMPID = p.ICMP.ID
	}
	return f
}

// byCapture follows the packet through devices only.
func (s *session) byCapture(ctx context.Context, w *watcher, got <-chan answered) error {
	a := <-got
	events, err := w.capture.Collect(ctx, s.probe.Match, quietDropped+s.pathDelay())
	if err != nil {
		return err
	}
	world := s.world(nil, a)
	world.Lost = w.capture.Dropped()
	o := observe.FromCapture(events, world)
	s.observation, s.answer = &o, a.took
	if s.r.Packets {
		s.packets = events
	}
	return nil
}
