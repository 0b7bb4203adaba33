package load

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// pace is when each message of a steady flow is due.
type pace struct {
	start    time.Time
	interval float64 // ns; zero is no pace
}

// paceOf is the pace of so many messages a second.
func paceOf(start time.Time, perSecond float64) pace {
	if perSecond <= 0 {
		return pace{start: start}
	}
	return pace{start, float64(time.Second) / perSecond}
}

// at is when message i, counted from zero, is due.
func (p pace) at(i int64) time.Time { return p.start.Add(time.Duration(float64(i) * p.interval)) }

// due is how many messages should have been sent by a time.
func (p pace) due(now time.Time) int64 { return int64(float64(now.Sub(p.start))/p.interval) + 1 }

// punctual runs fn on a thread that the kernel wakes on time: by default it may
// be 50 µs late (prctl(2), PR_SET_TIMERSLACK), which would stand in every
// latency of an open loop. The thread is that of the place's namespace.
func punctual(p Place, fn func() error) error {
	return p.NS.Do(func() error {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set timer slack: %w", err)
		}
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) //nolint:errcheck // 0 is the thread's default
		return fn()
	})
}

// sleepUntil blocks the thread, not the goroutine, until a time or the end of
// the context.
func sleepUntil(ctx context.Context, t time.Time) error {
	for {
		d := time.Until(t)
		if d <= 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		ts := unix.NsecToTimespec(min(d, stuckTimeout).Nanoseconds())
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // cut short by a signal: the loop looks again
	}
}
