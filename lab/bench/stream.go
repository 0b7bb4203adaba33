package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// DefaultWriteSize is what a stream hands to the kernel at once, in bytes: what
// iperf3 uses for TCP (its -l), so that figures can be compared.
const DefaultWriteSize = 128 << 10

// Sample is the throughput of one round.
type Sample struct {
	Bytes         int64         `json:"bytes"`         // as received
	Duration      time.Duration `json:"durationNs"`    // at the receiver, to the last byte
	BitsPerSecond float64       `json:"bitsPerSecond"` // of TCP payload
	Retransmits   int           `json:"retransmits"`   // segments (tcpi_total_retrans)
	MSS           int           `json:"mss"`           // bytes of payload in a segment (tcpi_snd_mss)
	PathMTU       int           `json:"pathMTU"`       // bytes of IP packet (tcpi_pmtu)
}

// drainTimeout is how much longer than asked a stream may take to deliver what
// the sender had already written.
const drainTimeout = 3 * time.Second

// Stream sends as fast as one connection can from client to server for the time
// d, in writes of writeSize bytes, and measures what the server receives.
func Stream(ctx context.Context, client, server Endpoint, d time.Duration, writeSize int) (Sample, error) {
	p, err := connect(ctx, client, server)
	if err == nil {
		defer p.close()
		var s Sample
		if s, err = p.stream(ctx, d, writeSize); err == nil {
			return s, nil
		}
	}
	return Sample{}, fmt.Errorf("stream from %s to %s: %w", client.Label, server.Label, err)
}

func (p *pair) stream(ctx context.Context, d time.Duration, writeSize int) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d+drainTimeout)
	defer cancel()
	var s Sample
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	group.Go(func() error {
		err := sendFor(ctx, int(p.client.Fd()), start.Add(d), make([]byte, writeSize))
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		n, err := receiveAll(ctx, int(p.server.Fd()), make([]byte, writeSize))
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		s.Bytes, s.Duration = n, time.Since(start)
		return nil
	})
	if err := group.Wait(); err != nil {
		return Sample{}, err
	}
	info, err := unix.GetsockoptTCPInfo(int(p.client.Fd()), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Sample{}, fmt.Errorf("read TCP_INFO: %w", err)
	}
	s.Retransmits, s.MSS, s.PathMTU = int(info.Total_retrans), int(info.Snd_mss), int(info.Pmtu)
	s.BitsPerSecond = float64(s.Bytes) * 8 / s.Duration.Seconds()
	return s, nil
}

// sendFor writes until a time, and ends the stream.
func sendFor(ctx context.Context, fd int, until time.Time, buf []byte) error {
	for time.Now().Before(until) && ctx.Err() == nil {
		if _, err := unix.Write(fd, buf); err != nil && !stuck(err) {
			return err
		}
	}
	return unix.Shutdown(fd, unix.SHUT_WR)
}

// receiveAll reads to the end of the stream.
func receiveAll(ctx context.Context, fd int, buf []byte) (int64, error) {
	var total int64
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil && n == 0:
			return total, ctx.Err()
		case err == nil:
			total += int64(n)
		case !stuck(err):
			return total, err
		case ctx.Err() != nil:
			return total, ctx.Err()
		}
	}
}
