package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// stream is what one connection carried.
type stream struct {
	bytes       int64         // as received, in took
	took        time.Duration // at the receiver
	retransmits uint32
	window      uint32        // the largest that the receiver offered
	info        *unix.TCPInfo // of the sender, at the end
}

func (s stream) bitsPerSecond() float64 { return float64(s.bytes) * 8 / s.took.Seconds() }

// tcpStream sends as fast as the connections can and measures what arrives.
func tcpStream(ctx context.Context, j Job) (Figures, error) {
	pairs, err := connect(ctx, j)
	if err != nil {
		return nil, err
	}
	defer closePairs(pairs)
	streams := make([]stream, len(pairs))
	group, ctx := errgroup.WithContext(ctx)
	w := j.open()
	for i, p := range pairs {
		group.Go(func() error {
			if err := streams[i].send(ctx, p.client, w, make([]byte, j.Write)); err != nil {
				return fmt.Errorf("send from %s: %w", j.Client.Label, err)
			}
			return nil
		})
		group.Go(func() error {
			if err := streams[i].receive(ctx, p.server, w, make([]byte, max(j.Write, DefaultWrite))); err != nil {
				return fmt.Errorf("receive at %s: %w", j.Server.Label, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return streamFigures(streams, j)
}

// lookEvery is how often a sender looks at the window that it is offered, which
// shrinks and grows with what the receiver has not yet taken.
const lookEvery = 10 * time.Millisecond

// send writes until the window closes.
func (s *stream) send(ctx context.Context, to socket, w window, buf []byte) error {
	var before *unix.TCPInfo
	var looked time.Time
	for now := w.start; now.Before(w.until); now = time.Now() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if before == nil && !now.Before(w.from) {
			var err error
			if before, err = tcpInfo(to); err != nil {
				return err
			}
		}
		if before != nil && now.Sub(looked) >= lookEvery {
			info, err := tcpInfo(to)
			if err != nil {
				return err
			}
			looked, s.window = now, max(s.window, info.Snd_wnd)
		}
		if _, err := unix.Write(int(to), buf); err != nil && !stuck(err) {
			return err
		}
	}
	var err error
	if s.info, err = tcpInfo(to); err == nil && before != nil {
		s.retransmits = s.info.Total_retrans - before.Total_retrans
	}
	return err
}

func tcpInfo(s socket) (*unix.TCPInfo, error) {
	info, err := unix.GetsockoptTCPInfo(int(s), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return nil, fmt.Errorf("read TCP_INFO: %w", err)
	}
	return info, nil
}

// receive counts from the first read that ends in the window to the first that
// ends after it.
func (s *stream) receive(ctx context.Context, from socket, w window, buf []byte) error {
	began, counting := w.from, w.from.Equal(w.start)
	for {
		n, err := unix.Read(int(from), buf)
		if err != nil && !stuck(err) {
			return err
		}
		if err == nil && n == 0 {
			return io.ErrUnexpectedEOF
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		switch {
		case counting:
			s.bytes += int64(max(n, 0))
		case !now.Before(w.from):
			began, counting = now, true
		}
		if s.took = now.Sub(began); !now.Before(w.until) && counting {
			return nil
		}
	}
}

// streamFigures puts the streams together.
func streamFigures(streams []stream, j Job) (Figures, error) {
	rates := make([]float64, len(streams))
	var sum, squares float64
	f := Figures{}
	for i, s := range streams {
		if s.took <= 0 {
			return nil, errors.New("the window was shorter than one read")
		}
		rates[i] = s.bitsPerSecond()
		sum += rates[i]
		squares += rates[i] * rates[i]
		f[Retransmits] += float64(s.retransmits)
	}
	if sum == 0 {
		return nil, fmt.Errorf("nothing arrived at %s in %v", j.Server.Label, j.Duration)
	}
	f[Throughput] = sum
	f[MSS], f[PathMTU], f[Window] = float64(streams[0].info.Snd_mss), float64(streams[0].info.Pmtu), float64(streams[0].window)
	if len(streams) > 1 {
		f[Slowest] = slices.Min(rates)
		// R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984.
		f[Fairness] = sum * sum / (float64(len(rates)) * squares)
	}
	return f, nil
}
