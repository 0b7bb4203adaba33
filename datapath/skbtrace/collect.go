package skbtrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// lookEvery is how often Collect looks for events: often enough to cost a trace
// nothing that one notices, and no load while nothing comes.
const lookEvery = 500 * time.Microsecond

// Collect returns the events since the last call, in the order of their times.
// It ends when done, asked each time that there are new ones, says so of all of
// them (nil never does), when nothing came for quiet, or when ctx ends; none of
// these is an error. One caller at a time.
func (t *Tracer) Collect(ctx context.Context, quiet time.Duration, done func([]Event) bool) ([]Event, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var all []Event
	last := time.Now()
	for {
		n := len(all)
		var err error
		if all, err = t.drain(all); err != nil {
			return all, err
		}
		if len(all) > n {
			last = time.Now()
			if done != nil && done(all) {
				return all, nil
			}
		}
		if time.Since(last) >= quiet {
			return all, nil
		}
		select {
		case <-ctx.Done():
			return all, nil
		case <-tick.C:
		}
	}
}

// drain adds what is in the buffer now.
func (t *Tracer) drain(all []Event) ([]Event, error) {
	t.reader.SetDeadline(time.Now())
	for {
		err := t.reader.ReadInto(&t.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all, nil
		}
		if err != nil {
			return all, fmt.Errorf("read the ring buffer: %w", err)
		}
		e, err := decode(t.record.RawSample)
		if err != nil {
			return all, err
		}
		if !ofCapture(e) {
			all = insert(all, e)
		}
	}
}

// captures are the functions that hand copies of packets to packet sockets, and
// free a copy for which a socket has no room (net/packet/af_packet.c): no loss of
// a packet.
var captures = []string{"packet_rcv", "tpacket_rcv", "packet_rcv_spkt"}

func ofCapture(e Event) bool {
	return e.Point == Free && slices.Contains(captures, e.Location)
}

// insert keeps events in order. CPUs write side by side, so that one may be
// late, by little.
func insert(all []Event, e Event) []Event {
	all = append(all, e)
	for i := len(all) - 1; i > 0 && all[i-1].TimeNs > e.TimeNs; i-- {
		all[i-1], all[i] = all[i], all[i-1]
	}
	return all
}
