package tracer

import (
	"context"
	"errors"
	"time"

	"slipway/datapath/observe"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
	"slipway/lab/netview"
)

// window is how often live packets are looked through. What is younger than
// settled may still be on its way, and waits for the next look.
const (
	window  = 300 * time.Millisecond
	settled = 100 * time.Millisecond
)

// Follow sends nothing: it watches, for a time, what goes from r.From to r.To by
// itself, and gives each exchange (a new connection, a datagram, a ping) to each
// as a trace without a prediction. It needs BPF.
func (t *Tracer) Follow(ctx context.Context, r Request, duration time.Duration, each func(*trace.Trace) error) (err error) {
	if t.observer == AFPacket {
		return &MissingError{errors.New("live packets are followed by BPF only")}
	}
	s, err := t.beginFollow(ctx, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.watch(); err != nil {
		return err
	}
	w := s.watcher
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	f := follower{s: s, each: each}
	for ctx.Err() == nil {
		look, stop := context.WithTimeout(ctx, window)
		events, err := w.skb.Collect(look, window, nil)
		stop()
		if err != nil {
			return err
		}
		f.lost = w.skb.Lost()
		if err := f.take(events, settled+s.pathDelay()); err != nil {
			return err
		}
	}
	return f.take(nil, 0)
}

// beginFollow is begin without a packet of our own.
func (t *Tracer) beginFollow(ctx context.Context, r Request) (*session, error) {
	s := newSession(t, r)
	var err error
	if s.from, s.src, err = source(t.st, r.From); err != nil {
		return nil, err
	}
	if s.dst, err = destination(t.st, r.To, r.Protocol); err != nil {
		return nil, err
	}
	if s.view, err = netview.Open(ctx, t.st, netview.Options{}); err != nil {
		return nil, err
	}
	s.live = true
	return s, nil
}

// follower turns a stream of events into exchanges.
type follower struct {
	s       *session
	each    func(*trace.Trace) error
	pending []skbtrace.Event
	lost    int
}

// take shows the exchanges that have had nothing new for the time quiet.
func (f *follower) take(events []skbtrace.Event, quiet time.Duration) error {
	f.pending = append(f.pending, events...)
	if len(f.pending) == 0 {
		return nil
	}
	groups, rest := observe.Exchanges(f.pending, f.s.packet(), f.s.ports(), quiet)
	f.pending = rest
	for _, g := range groups {
		world := f.s.world(g, answered{})
		world.Lost, world.Live = f.lost, true
		o := observe.FromSKB(g, nil, world)
		if len(o.Request) == 0 {
			continue
		}
		f.s.observation = &o
		if err := f.each(f.s.bundle().Trace); err != nil {
			return err
		}
	}
	return nil
}
