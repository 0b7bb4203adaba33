package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The range and precision of latency histograms, in nanoseconds: up to the
// longest that a round may take, to three significant digits.
const (
	latencyMin    = 1
	latencyMax    = int64(60 * time.Second)
	latencyDigits = 3
)

// RequestResponse sends a request of size bytes, waits for an answer of the
// same size, and so on over one connection for the time d, with one request
// under way at a time (what netperf calls TCP_RR). The histogram holds the
// latency of every request in nanoseconds.
func RequestResponse(ctx context.Context, client, server Endpoint, d time.Duration, size int) (*hdrhistogram.Histogram, error) {
	fail := func(err error) (*hdrhistogram.Histogram, error) {
		return nil, fmt.Errorf("requests from %s to %s: %w", client.Label, server.Label, err)
	}
	if size <= 0 || d > time.Duration(latencyMax) {
		return fail(fmt.Errorf("cannot measure %d bytes for %v", size, d))
	}
	p, err := connect(ctx, client, server)
	if err != nil {
		return fail(err)
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(ctx, d+drainTimeout)
	defer cancel()
	latencies := hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return answer(ctx, int(p.server.Fd()), make([]byte, size)) })
	group.Go(func() error {
		return request(ctx, int(p.client.Fd()), time.Now().Add(d), make([]byte, size), latencies)
	})
	if err := group.Wait(); err != nil {
		return fail(err)
	}
	return latencies, nil
}

// request asks until a time, and ends the connection.
func request(ctx context.Context, fd int, until time.Time, buf []byte, latencies *hdrhistogram.Histogram) error {
	sent := time.Now()
	for sent.Before(until) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeFull(ctx, fd, buf); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		if err := readFull(ctx, fd, buf); err != nil {
			return fmt.Errorf("receive answer: %w", err)
		}
		now := time.Now()
		if err := latencies.RecordValue(now.Sub(sent).Nanoseconds()); err != nil {
			return err
		}
		sent = now
	}
	return unix.Shutdown(fd, unix.SHUT_WR)
}

// answer returns each request to its sender until the connection ends.
func answer(ctx context.Context, fd int, buf []byte) error {
	for {
		err := readFull(ctx, fd, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive request: %w", err)
		}
		if err := writeFull(ctx, fd, buf); err != nil {
			return fmt.Errorf("send answer: %w", err)
		}
	}
}

func readFull(ctx context.Context, fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil && n == 0:
			return io.EOF
		case err == nil:
			buf = buf[n:]
		case !stuck(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return nil
}

func writeFull(ctx context.Context, fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Write(fd, buf)
		switch {
		case err == nil:
			buf = buf[n:]
		case !stuck(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return nil
}
