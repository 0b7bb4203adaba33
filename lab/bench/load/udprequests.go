package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// patience is how long an answer by UDP may take before it counts as lost.
const patience = time.Second

// udpRequests asks in datagrams, what netperf calls UDP_RR.
func udpRequests(ctx context.Context, j Job) (Figures, error) {
	port := j.Port
	var servers []func(context.Context) error
	if !j.alone() {
		s, at, err := listen(j, unix.SOCK_DGRAM)
		if err != nil {
			return nil, err
		}
		defer s.close()
		port = at
		servers = append(servers, func(ctx context.Context) error { return echoDatagrams(ctx, s, j.Size) })
	}
	var clients []requester
	for range j.Streams {
		s, err := dial(ctx, j, unix.SOCK_DGRAM, j.target(port))
		if err != nil {
			return nil, err
		}
		defer s.close()
		clients = append(clients, &udpClient{s: s, place: j.Client, run: uint16(rand.Uint32()), buf: make([]byte, j.Size)})
	}
	return ask(ctx, j, clients, servers)
}

// echoDatagrams returns datagrams to their senders until the context ends.
func echoDatagrams(ctx context.Context, s socket, size int) error {
	b := newBatch(size, true)
	for ctx.Err() == nil {
		n, err := b.receive(s)
		if err == nil {
			err = b.answer(s, n)
		}
		if err != nil && !stuck(err) {
			return err
		}
	}
	return nil
}

// udpClient asks from one socket.
type udpClient struct {
	s     socket
	place Place
	run   uint16
	buf   []byte
}

func (c *udpClient) closed(ctx context.Context, w window, r *replies) error {
	answer := make([]byte, len(c.buf))
	for number := int64(0); ; number++ {
		sent := time.Now()
		if !sent.Before(w.until) {
			return nil
		}
		if err := c.write(ctx, number, sent.Sub(w.start)); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		now, err := c.await(ctx, answer, number, sent.Add(patience))
		if err != nil {
			return fmt.Errorf("receive answer: %w", err)
		}
		if !w.counts(sent) {
			continue
		}
		r.sent++
		if now.IsZero() {
			r.lost++
		} else {
			r.answered(sent, now)
		}
	}
}

// await waits for one answer; zero if it does not come.
func (c *udpClient) await(ctx context.Context, buf []byte, number int64, until time.Time) (time.Time, error) {
	for {
		n, err := unix.Read(int(c.s), buf)
		if err != nil && !stuck(err) {
			return time.Time{}, err
		}
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		now := time.Now()
		if got, _, ok := stamped(buf[:max(n, 0)], c.run); ok && got == number {
			return now, nil
		}
		if now.After(until) {
			return time.Time{}, nil
		}
	}
}

func (c *udpClient) write(ctx context.Context, number int64, sent time.Duration) error {
	stamp(c.buf, c.run, number, sent)
	for {
		_, err := unix.Write(int(c.s), c.buf)
		switch {
		case err == nil || errors.Is(err, unix.ENOBUFS): // refused by a queue: lost
			return nil
		case !stuck(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

func (c *udpClient) steady(ctx context.Context, w window, p pace, r *replies) error {
	group, ctx := errgroup.WithContext(ctx)
	sent := make(chan struct{})
	group.Go(func() error {
		defer close(sent)
		return punctual(c.place, func() error { return c.send(ctx, w, p, r) })
	})
	group.Go(func() error { return c.receive(ctx, w, p, r, sent) })
	err := group.Wait()
	r.lost = r.sent - r.count()
	return err
}

func (c *udpClient) send(ctx context.Context, w window, p pace, r *replies) error {
	for i := int64(0); ; i++ {
		due := p.at(i)
		if !due.Before(w.until) {
			return nil
		}
		if err := sleepUntil(ctx, due); err != nil {
			return err
		}
		now := time.Now()
		if now.After(w.until.Add(drainTimeout)) { // cannot keep up: the rest is never sent
			return nil
		}
		if err := c.write(ctx, i, now.Sub(w.start)); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		if w.counts(due) {
			r.sent++
			r.lag.record(now.Sub(due))
		}
	}
}

// receive takes answers until none has come for patience after the last request.
func (c *udpClient) receive(ctx context.Context, w window, p pace, r *replies, sent <-chan struct{}) error {
	var seen arrivals
	answer := make([]byte, len(c.buf))
	var silent time.Time // since when, after the last request
	for {
		n, err := unix.Read(int(c.s), answer)
		if err != nil && !stuck(err) {
			return fmt.Errorf("receive answer: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		if number, _, ok := stamped(answer[:max(n, 0)], c.run); ok {
			silent = time.Time{}
			if due := p.at(number); !seen.again(number) && w.counts(due) {
				r.answered(due, now)
			}
			seen.next = max(seen.next, number+1)
		}
		switch {
		case !closed(sent):
		case r.count() >= r.sent:
			return nil
		case silent.IsZero():
			silent = now
		case now.Sub(silent) > patience:
			return nil
		}
	}
}
