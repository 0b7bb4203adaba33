package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// ErrNoAnswer is what Wait returns when its context ends first.
var ErrNoAnswer = errors.New("no answer")

// Wait blocks until the answer is there (a SYN-ACK, an echo) and returns the
// time since the probe was sent. A refused connection or an ICMP error is
// returned as the system's error (ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, …).
func (p *Probe) Wait(ctx context.Context) (time.Duration, error) {
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("wait for answer: %w", err)
	}
	var answer error
	if p.Protocol == ProbeTCP || p.Protocol == ProbeSCTP {
		err = raw.Write(func(fd uintptr) (done bool) {
			done, answer = connected(int(fd))
			return done
		})
	} else {
		err = raw.Read(func(fd uintptr) (done bool) {
			done, answer = p.echoed(int(fd))
			return done
		})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("wait for answer: %w: %w", ErrNoAnswer, context.Cause(ctx))
	}
	if err := errors.Join(err, answer); err != nil {
		return 0, fmt.Errorf("wait for answer: %w", err)
	}
	return time.Since(p.Sent), nil
}

// connected reports whether a connection attempt has ended, and how.
func connected(fd int) (bool, error) {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	if code != 0 {
		return true, unix.Errno(code)
	}
	_, err = unix.Getpeername(fd)
	if errors.Is(err, unix.ENOTCONN) {
		return false, nil
	}
	return true, err
}

// echoed reads until the answer is there; a raw socket gets those to others, too.
func (p *Probe) echoed(fd int) (bool, error) {
	buf := make([]byte, 65536)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil {
			return true, err
		}
		if p.Protocol == ProbeUDP {
			return true, nil // the socket is connected: only its peer can answer, in words of its own
		}
		if !bytes.Contains(buf[:n], p.Match.Marker) {
			continue
		}
		ip := Decode(LinkRaw, buf[:n], DefaultPorts).IP
		if ip.ICMP != nil && ip.ICMP.Type == layers.ICMPv4TypeEchoReply {
			return true, nil
		}
	}
}
