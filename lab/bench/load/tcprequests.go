package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// tcpRequests asks over standing connections, what netperf calls TCP_RR.
func tcpRequests(ctx context.Context, j Job) (Figures, error) {
	return overConnections(ctx, j,
		func(s socket) requester { return &tcpClient{s, j.Client, make([]byte, j.Size), make([]byte, j.Size)} },
		echoing(j))
}

// echoing is the server's end of one connection of such requests.
func echoing(j Job) func(context.Context, socket) error {
	return func(ctx context.Context, s socket) error { return echo(ctx, s, make([]byte, j.Size)) }
}

// overConnections asks over a job's connections.
func overConnections(ctx context.Context, j Job, client func(socket) requester, server func(context.Context, socket) error) (Figures, error) {
	pairs, err := connect(ctx, j)
	if err != nil {
		return nil, err
	}
	defer closePairs(pairs)
	var clients []requester
	var servers []func(context.Context) error
	for _, p := range pairs {
		clients = append(clients, client(p.client))
		if p.server >= 0 {
			servers = append(servers, func(ctx context.Context) error { return server(ctx, p.server) })
		}
	}
	return ask(ctx, j, clients, servers)
}

// echo returns each request to its sender until the connection ends.
func echo(ctx context.Context, s socket, buf []byte) error {
	for {
		err := s.readFull(ctx, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive request: %w", err)
		}
		if err := s.writeFull(ctx, buf); err != nil {
			return fmt.Errorf("send answer: %w", err)
		}
	}
}

// tcpClient asks over one connection.
type tcpClient struct {
	s       socket
	place   Place
	request []byte
	answer  []byte
}

func (c *tcpClient) closed(ctx context.Context, w window, r *replies) error {
	for sent := time.Now(); sent.Before(w.until); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.s.writeFull(ctx, c.request); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		if err := c.s.readFull(ctx, c.answer); err != nil {
			return fmt.Errorf("receive answer: %w", err)
		}
		now := time.Now()
		if w.counts(sent) {
			r.answered(sent, now)
		}
		sent = now
	}
	return nil
}

// steady sends on one thread and receives on another: answers come in the order
// of requests, so that counting them tells which is which.
func (c *tcpClient) steady(ctx context.Context, w window, p pace, r *replies) error {
	group, ctx := errgroup.WithContext(ctx)
	total := int64(float64(w.until.Sub(p.start)) / p.interval)
	group.Go(func() error {
		return punctual(c.place, func() error { return c.send(ctx, w, p, total, r) })
	})
	group.Go(func() error { return c.receive(ctx, w, p, total, r) })
	return group.Wait()
}

func (c *tcpClient) send(ctx context.Context, w window, p pace, total int64, r *replies) error {
	end := w.until.Add(drainTimeout)
	for i := range total {
		due := p.at(i)
		if err := sleepUntil(ctx, due); err != nil {
			return err
		}
		now := time.Now()
		if now.After(end) {
			return nil
		}
		if err := c.write(ctx, end); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		if w.counts(due) {
			r.sent++
			r.lag.record(now.Sub(due))
		}
	}
	return nil
}

// write hands over one request; it gives up at the end.
func (c *tcpClient) write(ctx context.Context, end time.Time) error {
	for rest := c.request; len(rest) > 0; {
		n, err := unix.Write(int(c.s), rest)
		switch {
		case err == nil:
			rest = rest[n:]
		case !stuck(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return nil
		}
	}
	return nil
}

// receive takes the answers, many at a time if they come so.
func (c *tcpClient) receive(ctx context.Context, w window, p pace, total int64, r *replies) error {
	buf := make([]byte, max(len(c.answer), 64<<10))
	var bytes, answers int64
	end := w.until.Add(drainTimeout)
	for answers < total {
		n, err := unix.Read(int(c.s), buf)
		if err == nil && n == 0 {
			return fmt.Errorf("receive answer: %w", io.ErrUnexpectedEOF)
		}
		if err != nil && !stuck(err) {
			return fmt.Errorf("receive answer: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		for bytes += int64(max(n, 0)); answers < bytes/int64(len(c.answer)); answers++ {
			if due := p.at(answers); w.counts(due) {
				r.answered(due, now)
			}
		}
		if now.After(end) {
			r.giveUp(w, p, answers, total, now)
			return nil
		}
	}
	return nil
}

// giveUp counts requests that had no answer at the end with what they had
// waited until then: leaving out the slowest would flatter.
func (r *replies) giveUp(w window, p pace, from, total int64, now time.Time) {
	for i := from; i < total; i++ {
		if due := p.at(i); w.counts(due) {
			r.record(now.Sub(due))
			r.unanswered++
		}
	}
}
