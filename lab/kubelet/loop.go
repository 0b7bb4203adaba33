package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"slipway/lab"
)

const (
	// lookEvery is how often the lab's state is looked at for changes of others.
	lookEvery = 200 * time.Millisecond
	// settle is how long changes are gathered: what one request of a user sets off
	// comes within milliseconds.
	settle = 3 * time.Millisecond
	// longestRest is the longest time between attempts at what fails.
	longestRest = 5 * time.Second
)

// loop passes over everything whenever something has changed, in the API or in
// the lab.
type loop struct {
	world
	have  *watched
	log   *slog.Logger
	again time.Time     // when to pass although nothing happens
	moved chan struct{} // gets a word when others have changed the lab; may be nil
}

// passes passes until ctx ends or the lab is gone.
func (l *loop) passes(ctx context.Context, pass func(context.Context) error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for rest := firstRest; ; {
		_, err := l.look()
		if err == nil && l.snapshot != nil {
			select { // what comes from now on is for the next pass
			case <-l.have.wake:
			default:
			}
			err = pass(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, lab.ErrNoLab):
			return err
		case err != nil:
			l.log.Warn("the lab is not as the API wants it yet", "err", err)
			l.passIn(rest)
			rest = min(2*rest, longestRest)
		default:
			rest = firstRest
		}
		if err := l.await(ctx, tick); err != nil {
			return err
		}
	}
}

// passIn has the next pass begin after a while at the latest.
func (l *loop) passIn(d time.Duration) {
	if at := time.Now().Add(d); l.again.IsZero() || at.Before(l.again) {
		l.again = at
	}
}

// await returns when there is something to do.
func (l *loop) await(ctx context.Context, tick *time.Ticker) error {
	var timer <-chan time.Time
	if !l.again.IsZero() {
		timer = time.After(time.Until(l.again))
	}
	l.again = time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer:
			return nil
		case <-l.have.wake:
			select { // what belongs together comes together
			case <-ctx.Done():
			case <-time.After(settle):
			}
			return nil
		case <-tick.C:
			changed, err := l.look()
			if err != nil {
				return err
			}
			if changed { // by others: `mode` makes new leases
				select {
				case l.moved <- struct{}{}:
				default:
				}
				return nil
			}
		}
	}
}
