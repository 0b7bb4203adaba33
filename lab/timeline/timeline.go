package timeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/lab"
)

// Event is one change.
type Event struct {
	Time  time.Time `json:"time"`
	Place string    `json:"place"` // "api", or a node
	Kind  string    `json:"kind"`  // "pod", "route", "nat"
	Text  string    `json:"text"`
}

// API is the place of what the API server says.
const API = "api"

// settle is how long an event waits for earlier ones of other places.
const settle = 500 * time.Millisecond

// Watch gives all changes of a lab, in their order, until ctx ends. Started is
// called once everything listens. What was there before is no change.
func Watch(ctx context.Context, st *lab.State, started func(), emit func(Event)) error {
	w := &watch{st: st, events: make(chan Event, 1024)}
	g, ctx := errgroup.WithContext(ctx)
	sources := []func(context.Context, func()) error{}
	for _, n := range st.Snapshot.Nodes {
		sources = append(sources,
			func(ctx context.Context, ready func()) error { return w.kernel(ctx, n.Name, ready) },
			func(ctx context.Context, ready func()) error { return w.rules(ctx, n.Name, ready) })
	}
	if st.Live != nil {
		sources = append(sources, w.api)
	}
	var listening sync.WaitGroup
	for _, s := range sources {
		listening.Add(1)
		g.Go(func() error {
			ready := sync.OnceFunc(listening.Done)
			defer ready() // whoever fails must not keep the others waiting
			return s(ctx, ready)
		})
	}
	g.Go(func() error {
		listening.Wait()
		if ctx.Err() == nil && started != nil {
			started()
		}
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.order(emit)
	}()
	err := g.Wait()
	close(w.events)
	<-done
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// watch is a lab that is being watched.
type watch struct {
	st     *lab.State
	events chan Event
}

func (w *watch) say(at time.Time, place, kind, format string, args ...any) {
	w.events <- Event{Time: at, Place: place, Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// order hands events on in the order of their times.
func (w *watch) order(emit func(Event)) {
	var waiting []Event
	flush := func(until time.Time) {
		slices.SortStableFunc(waiting, func(a, b Event) int { return a.Time.Compare(b.Time) })
		n, _ := slices.BinarySearchFunc(waiting, until, func(e Event, t time.Time) int { return cmp.Or(e.Time.Compare(t), -1) })
		for _, e := range waiting[:n] {
			emit(e)
		}
		waiting = slices.Delete(waiting, 0, n)
	}
	tick := time.NewTicker(settle / 5)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-w.events:
			if !ok {
				flush(time.Now().Add(time.Hour)) // all
				return
			}
			waiting = append(waiting, e)
		case now := <-tick.C:
			flush(now.Add(-settle))
		}
	}
}
