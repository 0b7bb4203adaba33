package observe

import (
	"container/heap"
	"context"
	"errors"
	"time"
)

// The rings of a capture that goes on. A block holds the largest packet that a
// device hands over, 64 KiB and its headers, and the fewest of them outlast
// what a reader may be late by.
const (
	streamBlockBytes  = 128 << 10
	minStreamBlocks   = 4
	streamRetireAfter = 10 * time.Millisecond
)

// Stream hands every packet to take, in the order in which things happened,
// until ctx ends or take fails, whose error it then returns. Packets come some
// at a time, at most about 80 ms after they passed where there is more than one
// place: a place's packets wait until those of the others must have been read.
// (A packet that the kernel itself handles later than that, on a machine without
// a free CPU, comes late: its time is that of its arrival in the queue.)
// What passed before ctx ended is handed over too. It wants rings that hold what
// comes meanwhile ([Options].RingBytes); Dropped tells what they did not.
func (c *Capture) Stream(ctx context.Context, take func([]Event) error) error {
	return errors.Join(c.stream(ctx, take), c.countDropped())
}

func (c *Capture) stream(ctx context.Context, take func([]Event) error) error {
	m := newMerger(len(c.queues))
	hold := c.size.settle()
	if len(c.queues) == 1 {
		hold = 0
	}
	var ended time.Time // zero while ctx goes on
	for {
		if ended.IsZero() && ctx.Err() != nil {
			ended = time.Now()
		}
		over := !ended.IsZero() && time.Since(ended) >= c.size.settle()
		c.readInto(m)
		if over {
			hold = 0
		}
		if due := m.take(time.Now().Add(-hold)); len(due) > 0 {
			if err := take(due); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
		if err := c.wait(maxWait); err != nil {
			return err
		}
	}
}

// readInto reads what is there.
func (c *Capture) readInto(m *merger) {
	for i, q := range c.queues {
		now := time.Now()
		take := func(f frame) { m.add(i, held{Event: c.event(i, f), read: now}) }
		for n := 0; n < c.size.blocks && q.ring.read(take); n++ {
			continue
		}
	}
}

// DroppedIn is how many packets the kernel had no room for in each place that
// lost any, by label, up to the end of the last Collect or Stream.
func (c *Capture) DroppedIn() map[string]int {
	out := map[string]int{}
	for _, q := range c.queues {
		if q.dropped > 0 {
			out[q.place.Label] += q.dropped
		}
	}
	return out
}

// held is an event that waits for those that may have happened before it.
type held struct {
	Event
	read time.Time // when it came out of the ring
}

// merger makes one sequence of the sockets' events, as inOrder does, while they
// come. It is a heap of the sockets that have any, by their first event.
type merger struct {
	queues [][]held
	heads  []int // of the sockets that have events: the heap
}

func newMerger(queues int) *merger { return &merger{queues: make([][]held, queues)} }

func (m *merger) add(queue int, h held) {
	m.queues[queue] = append(m.queues[queue], h)
	if len(m.queues[queue]) == 1 {
		heap.Push(m, queue)
	}
}

// take returns what was read by the time due, with all that happened before it.
func (m *merger) take(due time.Time) []Event {
	left := 0
	for _, q := range m.heads {
		for _, h := range m.queues[q] {
			if h.read.After(due) {
				break
			}
			left++
		}
	}
	var out []Event
	for left > 0 {
		q := m.heads[0]
		first := m.queues[q][0]
		if !first.read.After(due) {
			left--
		}
		out = append(out, first.Event)
		if m.queues[q] = m.queues[q][1:]; len(m.queues[q]) == 0 {
			m.queues[q] = nil
			heap.Pop(m)
		} else {
			heap.Fix(m, 0)
		}
	}
	return out
}

// Len implements heap.Interface.
func (m *merger) Len() int { return len(m.heads) }

// Less implements heap.Interface.
func (m *merger) Less(i, j int) bool {
	a, b := &m.queues[m.heads[i]][0].Event, &m.queues[m.heads[j]][0].Event
	if before(*a, *b) {
		return true
	}
	return !before(*b, *a) && m.heads[i] < m.heads[j]
}

// Swap implements heap.Interface.
func (m *merger) Swap(i, j int) { m.heads[i], m.heads[j] = m.heads[j], m.heads[i] }

// Push implements heap.Interface.
func (m *merger) Push(x any) { m.heads = append(m.heads, x.(int)) }

// Pop implements heap.Interface.
func (m *merger) Pop() any {
	last := m.heads[len(m.heads)-1]
	m.heads = m.heads[:len(m.heads)-1]
	return last
}
