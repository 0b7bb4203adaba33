package mesh

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// atOnce bounds the probes that are under way on one host.
const atOnce = 512

// probe tries all probes at once.
func (s Spec) probe(ctx context.Context) []Outcome {
	out := make([]Outcome, len(s.Probes))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, p := range s.Probes {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			state, reason := s.try(ctx, p)
			out[i] = Outcome{ID: p.ID, State: state, Reason: reason}
		})
	}
	wg.Wait()
	return out
}

func (s Spec) try(ctx context.Context, p Probe) (State, string) {
	ctx, stop := context.WithTimeout(ctx, s.Timeout)
	defer stop()
	switch {
	case p.Protocol == TCP:
		return s.connect(ctx, p)
	case p.Held:
		return Unknown, "another program has the port, and only that one knows what comes"
	default:
		return s.ask(ctx, p)
	}
}

// connect tries TCP.
func (s Spec) connect(ctx context.Context, p Probe) (State, string) {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp4", (&net.TCPAddr{IP: p.Address.AsSlice(), Port: p.Port}).String())
	if err != nil {
		return judged(err)
	}
	defer c.Close() //nolint:errcheck // only tried
	if p.Held {
		return Held, ""
	}
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	said := make([]byte, len(s.Nonce))
	_, err = io.ReadFull(c, said)
	switch {
	case err == nil && string(said) == s.Nonce:
		return Open, ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout, "it connects, and then nothing comes"
	default:
		return Diverted, "another program answers than the one that listens there"
	}
}

// again is how long it takes until a packet is sent once more: each time it is
// twice as long, up to seldom.
const (
	again  = 100 * time.Millisecond
	seldom = time.Second
)

// ask sends packets until one is answered.
func (s Spec) ask(ctx context.Context, p Probe) (State, string) {
	c, err := dial(p.Place)
	if err != nil {
		return judged(err)
	}
	defer c.Close() //nolint:errcheck // only tried
	deadline, _ := ctx.Deadline()
	buf := make([]byte, 1500)
	for pause := again; ; pause = min(2*pause, seldom) {
		if _, err := c.Write(packet(question, s.Nonce, p.ID)); err != nil {
			return judged(err)
		}
		until := time.Now().Add(pause)
		if until.After(deadline) {
			until = deadline
		}
		_ = c.SetReadDeadline(until)
		for {
			n, _, err := c.ReadFrom(buf) // not Read, which gives raw sockets' packets with their IP header
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return judged(err)
			}
			if id, ok := parsePacket(buf[:n], answer, s.Nonce); ok && id == p.ID {
				return Open, ""
			}
		}
		if ctx.Err() != nil || !time.Now().Before(deadline) {
			return Timeout, "no packet is answered"
		}
	}
}

// conn is connected, and so hears of ICMP errors.
type conn interface {
	net.Conn
	net.PacketConn
}

func dial(p Place) (conn, error) {
	if p.Protocol == UDP {
		return net.DialUDP("udp4", nil, &net.UDPAddr{IP: p.Address.AsSlice(), Port: p.Port})
	}
	return net.DialIP(network(p.Protocol), nil, &net.IPAddr{IP: p.Address.AsSlice()})
}

// judged is what an error of a socket says of the way.
func judged(err error) (State, string) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOPROTOOPT), errors.Is(err, syscall.ECONNRESET):
		return Refused, ""
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return NoRoute, cause(err)
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return Blocked, cause(err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return Timeout, ""
	default:
		return Unknown, cause(err)
	}
}
