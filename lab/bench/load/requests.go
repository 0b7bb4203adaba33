package load

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// replies are the requests of one connection that counted.
type replies struct {
	latencies
	last       time.Time // when the last of them was answered
	lag        latencies // of sending (open loop)
	sent       int64
	lost       int64 // never answered, and not in the latencies (UDP)
	unanswered int64 // at the end, and in the latencies (TCP)
}

func newReplies() *replies { return &replies{latencies: newLatencies(), lag: newLatencies()} }

// answered records a request and its answer.
func (r *replies) answered(since, now time.Time) {
	r.record(now.Sub(since))
	r.last = now
}

// requester is one connection's client.
type requester interface {
	// closed asks, awaits the answer, and asks again.
	closed(ctx context.Context, w window, r *replies) error
}

// paced is a requester that can do without waiting.
type paced interface {
	// steady asks at a pace, whatever has been answered. Latencies count from
	// when a request was due: a request that had to wait for its turn because the
	// ones before it were slow has waited, too.
	steady(ctx context.Context, w window, p pace, r *replies) error
}

// ask runs a job's clients, one for each connection, beside its servers, and
// puts together what they say. Servers end with their context.
func ask(ctx context.Context, j Job, clients []requester, servers []func(context.Context) error) (Figures, error) {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	answering, serving := errgroup.WithContext(serving)
	for _, s := range servers {
		answering.Go(func() error {
			if err := s(serving); err != nil && serving.Err() == nil {
				return fmt.Errorf("answer at %s: %w", j.Server.Label, err)
			}
			return nil
		})
	}
	all := make([]*replies, len(clients))
	asking, ctx := errgroup.WithContext(serving)
	w := j.open()
	for i, c := range clients {
		all[i] = newReplies()
		asking.Go(func() error {
			if err := j.askWith(ctx, c, w, i, all[i]); err != nil {
				return fmt.Errorf("ask from %s: %w", j.Client.Label, err)
			}
			return nil
		})
	}
	err := asking.Wait()
	stop()
	if e := answering.Wait(); e != nil { // the cause of what the client saw
		err = e
	}
	if err != nil {
		return nil, err
	}
	return requestFigures(all, w, j)
}

func (j Job) askWith(ctx context.Context, c requester, w window, i int, r *replies) error {
	open, ok := c.(paced)
	if j.Rate == 0 || !ok { // a job that could not be paced was refused
		return c.closed(ctx, w, r)
	}
	perStream := j.Rate / float64(j.Streams)
	p := paceOf(w.start, perStream)
	// Connections take turns: all at once would be bursts.
	p.start = p.start.Add(time.Duration(p.interval * float64(i) / float64(j.Streams)))
	return open.steady(ctx, w, p, r)
}

// requestFigures puts the connections together.
func requestFigures(all []*replies, w window, j Job) (Figures, error) {
	sum, f := newReplies(), Figures{}
	for _, r := range all {
		sum.h.Merge(r.h)
		sum.lag.h.Merge(r.lag.h)
		sum.sent += r.sent
		sum.lost += r.lost
		sum.unanswered += r.unanswered
		if n := r.count() - r.unanswered; n > 0 {
			f[Rate] += float64(n) / j.span(w, r.last).Seconds()
		}
	}
	if sum.count() == sum.unanswered {
		return nil, fmt.Errorf("%s answered nothing in %v", j.Server.Label, j.Duration)
	}
	sum.into(f)
	if j.Rate > 0 {
		f[SendLagP99] = sum.lag.quantile(99)
	}
	switch j.Workload {
	case UDPRequests:
		f[Loss] = float64(sum.lost) / float64(sum.sent)
	case TCPRequests:
		f[Unanswered] = float64(sum.unanswered)
	}
	return f, nil
}

// span is the time that answered requests were spread over: in a closed loop to
// the last answer, in an open one the whole window, and longer if answers came
// after it.
func (j Job) span(w window, last time.Time) time.Duration {
	d := last.Sub(w.from)
	if j.Rate > 0 {
		d = max(d, j.Duration)
	}
	return d
}
