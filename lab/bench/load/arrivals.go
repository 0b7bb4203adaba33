package load

import (
	"math"
	"time"
)

// memory is how far back duplicates are told from datagrams that come late, in
// numbers: a power of two.
const memory = 1 << 16

// arrivals is what a receiver of stamped datagrams makes of them.
type arrivals struct {
	inWindow   int64 // arrived in the window, whenever sent: the rate
	got        int64 // sent in the window, whenever they arrived: the loss
	reordered  int64 // of got, those with a smaller number than one before
	duplicates int64
	next       int64 // the number after the greatest so far (RFC 4737 §3.3, NextExp)
	jitter     float64
	transit    time.Duration
	timed      bool
	seen       [memory / 64]uint64 // which of the last numbers have come
}

// arrive takes one datagram.
func (a *arrivals) arrive(b []byte, d *datagrams, now time.Time) {
	number, sent, ok := stamped(b, d.run)
	if !ok {
		return
	}
	if d.w.start.IsZero() { // the sender's clock is another's: its first datagram tells
		d.w = d.opens(now.Add(-sent))
	}
	if d.w.counts(now) {
		a.inWindow++
	}
	if a.again(number) {
		a.duplicates++
		return
	}
	late := number < a.next
	a.next = max(a.next, number+1)
	if !d.w.counts(d.w.start.Add(sent)) {
		return
	}
	a.got++
	if late {
		a.reordered++
	}
	a.space(now.Sub(d.w.start) - sent)
}

// space updates the interarrival jitter by one datagram's time under way
// (RFC 3550 §6.4.1: J += (|D| − J)/16). Both ends read the same clock.
func (a *arrivals) space(transit time.Duration) {
	if a.timed {
		a.jitter += (math.Abs(float64(transit-a.transit)) - a.jitter) / 16
	}
	a.transit, a.timed = transit, true
}

// again remembers a number and reports whether it had come. Numbers further
// back than the memory count as new.
func (a *arrivals) again(number int64) bool {
	if number < a.next-memory {
		return false
	}
	for n := max(a.next, number-memory); n <= number; n++ { // those now entering the memory
		a.seen[n%memory/64] &^= 1 << (n % 64)
	}
	word, bit := &a.seen[number%memory/64], uint64(1)<<(number%64)
	had := *word&bit != 0
	*word |= bit
	return had
}
