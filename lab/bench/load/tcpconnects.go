package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// connects are the connections that one client made.
type connects struct {
	*replies
	connecting latencies // until the connection stood
}

// tcpConnects connects, asks, takes the answer and closes, over and over, what
// netperf calls TCP_CRR. The server closes first, with a FIN, so that it and not
// the client keeps the port in TIME_WAIT (RFC 9293 §3.6), where a new connection
// may take it over: clients do not run out of ports. Where somebody else serves,
// who closes when is not known, and the client resets the connection
// (SO_LINGER 0).
func tcpConnects(ctx context.Context, j Job) (Figures, error) {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	answering, serving := errgroup.WithContext(serving)
	port := j.Port
	if !j.alone() {
		l, at, err := listen(j, unix.SOCK_STREAM)
		if err != nil {
			return nil, err
		}
		defer l.close()
		port = at
		for range j.Streams {
			answering.Go(func() error {
				if err := answerConnects(serving, l, make([]byte, j.Size)); err != nil {
					return fmt.Errorf("answer at %s: %w", j.Server.Label, err)
				}
				return nil
			})
		}
	}
	all := make([]*connects, j.Streams)
	asking, ctx := errgroup.WithContext(serving)
	w, to := j.open(), j.target(port)
	for i := range all {
		all[i] = &connects{newReplies(), newLatencies()}
		asking.Go(func() error { return all[i].run(ctx, j, to, w) })
	}
	err := asking.Wait()
	stop()
	if e := answering.Wait(); e != nil { // the cause of what the client saw
		err = e
	}
	if err != nil {
		return nil, err
	}
	return connectFigures(all, w, j)
}

func connectFigures(all []*connects, w window, j Job) (Figures, error) {
	replies, connecting := make([]*replies, len(all)), newLatencies()
	for i, c := range all {
		replies[i] = c.replies
		connecting.h.Merge(c.connecting.h)
	}
	f, err := requestFigures(replies, w, j)
	if err != nil {
		return nil, err
	}
	f[ConnectP50], f[ConnectP99] = connecting.quantile(50), connecting.quantile(99)
	return f, nil
}

// answerConnects answers one connection after the other until the context ends.
func answerConnects(ctx context.Context, l socket, buf []byte) error {
	for ctx.Err() == nil {
		s, err := l.accept()
		if stuck(err) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		err = s.readFull(ctx, buf)
		if err == nil {
			err = s.writeFull(ctx, buf)
		}
		s.close()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// run makes connections until the window closes. All of it runs on one thread
// in the client's namespace, as each new socket must be opened there.
func (c *connects) run(ctx context.Context, j Job, to netip.AddrPort, w window) error {
	ask := make([]byte, j.Size)
	answer := make([]byte, j.Size)
	addr := sockaddr(to)
	return j.Client.NS.Do(func() error {
		for {
			begun := time.Now()
			if !begun.Before(w.until) {
				return nil
			}
			stood, err := j.once(ctx, addr, ask, answer)
			if err != nil {
				return fmt.Errorf("from %s to %s: %w", j.Client.Label, to, err)
			}
			now := time.Now()
			if w.counts(begun) {
				c.connecting.record(stood.Sub(begun))
				c.answered(begun, now)
			}
		}
	})
}

// once makes one connection, and says when it stood.
func (j Job) once(ctx context.Context, to *unix.SockaddrInet4, ask, answer []byte) (stood time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s, err := open(unix.SOCK_STREAM)
	if err != nil {
		return stood, err
	}
	defer s.close()
	if j.Served {
		if err := unix.SetsockoptLinger(int(s), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return stood, fmt.Errorf("set linger: %w", err)
		}
	}
	if err := s.bindClient(j.Client); err != nil {
		return stood, err
	}
	err = s.connect(ctx, to)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return stood, fmt.Errorf("connect: all ports of the client are taken: %w", err)
	}
	if err != nil {
		return stood, fmt.Errorf("connect: %w", err)
	}
	stood = time.Now()
	if err := s.writeFull(ctx, ask); err != nil {
		return stood, fmt.Errorf("send request: %w", err)
	}
	if err := s.readFull(ctx, answer); err != nil {
		return stood, fmt.Errorf("receive answer: %w", err)
	}
	return stood, s.ended(ctx, j.Served)
}

// ended waits for the server's end of the connection, if that is who closes.
func (s socket) ended(ctx context.Context, served bool) error {
	if served {
		return nil
	}
	var more [1]byte
	for {
		n, err := unix.Read(int(s), more[:])
		switch {
		case err == nil && n == 0:
			return nil
		case err == nil:
			return errors.New("the server said more than it was asked")
		case !stuck(err):
			return fmt.Errorf("receive end: %w", err)
		case ctx.Err() != nil:
			return fmt.Errorf("receive end: %w", ctx.Err())
		}
	}
}
