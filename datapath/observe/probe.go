package observe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
)

// Protocol is what a probe is made of.
type Protocol string

// The protocols of probes.
const (
	ProbeTCP  Protocol = "tcp"  // a connection's SYN
	ProbeUDP  Protocol = "udp"  // a datagram with a marker
	ProbeICMP Protocol = "icmp" // an echo request with a marker
)

// Probe is one packet sent from a namespace, and the socket that waits for its
// answer. The socket stays open until Close, so that the kernel does not answer
// a late reply with an error of its own.
type Probe struct {
	// Match is what Collect needs to find the probe.
	Match    Match
	Protocol Protocol
	Sent     time.Time
	file     *os.File
}

// Send sends one probe from ns to an address (the port is not used by ICMP).
func Send(ns *netns.NS, protocol Protocol, to netip.AddrPort) (*Probe, error) {
	p := &Probe{Protocol: protocol}
	fd := -1
	err := ns.Do(func() error {
		var err error
		fd, err = p.open()
		return err
	})
	if err == nil {
		p.Sent = time.Now()
		err = p.send(fd, to)
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("send %s probe from %s to %s: %w", protocol, ns.Name(), to, err)
	}
	p.file = os.NewFile(uintptr(fd), "probe") // non-blocking: joins the poller
	return p, nil
}

// Close gives up the probe's socket.
func (p *Probe) Close() error { return p.file.Close() }

func (p *Probe) open() (int, error) {
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	switch p.Protocol {
	case ProbeTCP:
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|flags, 0)
	case ProbeUDP:
		return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|flags, 0)
	case ProbeICMP:
		return unix.Socket(unix.AF_INET, unix.SOCK_RAW|flags, unix.IPPROTO_ICMP)
	default:
		return -1, fmt.Errorf("unknown protocol %q", p.Protocol)
	}
}

func (p *Probe) send(fd int, to netip.AddrPort) error {
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	if p.Protocol == ProbeTCP {
		return p.identify(fd, to)
	}
	p.Match.Marker = newMarker()
	payload := p.Match.Marker
	if p.Protocol == ProbeICMP {
		if payload, err = echoRequest(p.Match.Marker); err != nil {
			return err
		}
	}
	if _, err := unix.Write(fd, payload); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// identify notes the connection by the port that the kernel chose.
func (p *Probe) identify(fd int, to netip.AddrPort) error {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("read own address: %w", err)
	}
	own, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return fmt.Errorf("unexpected own address %T", name)
	}
	p.Match.Client = netip.AddrPortFrom(netip.AddrFrom4(own.Addr), uint16(own.Port))
	p.Match.Server = to
	return nil
}

// newMarker makes a payload that no other packet has, and that reads well in a dump.
func newMarker() []byte {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails (Go 1.24)
	return []byte("slipway-probe-" + hex.EncodeToString(b[:]))
}

func echoRequest(payload []byte) ([]byte, error) {
	var id [2]byte
	_, _ = rand.Read(id[:])
	buf := gopacket.NewSerializeBuffer()
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: binary.BigEndian.Uint16(id[:]), Seq: 1}
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, echo, gopacket.Payload(payload))
	if err != nil {
		return nil, fmt.Errorf("build echo request: %w", err)
	}
	return buf.Bytes(), nil
}

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
	if p.Protocol == ProbeTCP {
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

// echoed reads until the marker is there; a raw socket gets other answers too.
func (p *Probe) echoed(fd int) (bool, error) {
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if err != nil {
			return true, err
		}
		if !bytes.Contains(buf[:n], p.Match.Marker) {
			continue
		}
		ip := Decode(LinkRaw, buf[:n], DefaultPorts).IP
		if p.Protocol != ProbeICMP || (ip.ICMP != nil && ip.ICMP.Type == layers.ICMPv4TypeEchoReply) {
			return true, nil
		}
	}
}
