package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/lab/echo"
)

// answerPatience is how long an answer may take that has to come. It outlives
// two lost SYNs, and is not used up where something is refused.
const answerPatience = 10 * time.Second

// dropPatience is how long one waits for an answer that must not come.
const dropPatience = 700 * time.Millisecond

// dial connects from inside a place's namespace.
func (p *place) dial(network string, to netip.AddrPort, patience time.Duration) (c net.Conn, err error) {
	err = p.ns.Do(func() error {
		c, err = net.DialTimeout(network, to.String(), patience)
		return err
	})
	return c, err
}

// client makes HTTP requests from a place, each on a connection of its own.
func (p *place) client() *http.Client {
	return &http.Client{Timeout: answerPatience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return p.dial(network, to, answerPatience)
		},
	}}
}

// get asks an echo server who it is and whom it sees.
func (p *place) get(to netip.AddrPort) (echo.Answer, error) { return p.send(to, nil) }

// send posts a body, or gets without one.
func (p *place) send(to netip.AddrPort, body []byte) (a echo.Answer, err error) {
	method, r := http.MethodGet, io.Reader(nil)
	if body != nil {
		method, r = http.MethodPost, bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, "http://"+to.String()+"/", r)
	if err != nil {
		return a, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := p.client().Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("status %s", resp.Status)
	}
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// ping sends one echo request that has to be answered, with ping's own options
// if there are any, and returns what ping said.
func (p *place) ping(to netip.Addr, options ...string) (string, error) {
	args := append([]string{"-n", "-c", "1", "-W", "10"}, options...)
	out, err := run.Cmd{NS: p.ns, Name: "ping", Args: append(args, to.String())}.Output(context.Background())
	return string(out), err
}

// echoed sends bytes over a connection and wants them back.
func echoed(c io.ReadWriter) error {
	want := make([]byte, 32)
	if _, err := rand.Read(want); err != nil {
		return err
	}
	if _, err := c.Write(want); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	got := make([]byte, 64)
	n, err := c.Read(got)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("sent %x, came back %x", want, got[:n])
	}
	return nil
}

// udp wants one datagram echoed; the kernel takes it only from the address
// that was asked.
func (p *place) udp(to netip.AddrPort) error {
	c, err := p.dial("udp4", to, answerPatience)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // done with it
	if err := c.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return err
	}
	return echoed(c)
}

// sctp wants one message echoed over an association.
func (p *place) sctp(to netip.AddrPort) error {
	var fd int
	err := p.ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close() //nolint:errcheck // done with it
	limit := unix.NsecToTimeval(answerPatience.Nanoseconds())
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &limit); err != nil {
			return err
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return echoed(f)
}

// listener is a TCP server on a node that says whom it sees.
type listener struct {
	to netip.AddrPort
	l  net.Listener
}

// listen opens a port on a node until the test ends.
func listen(t testing.TB, node *place) *listener {
	t.Helper()
	s := &listener{}
	err := node.ns.Do(func() (err error) {
		s.l, err = net.Listen("tcp4", netip.AddrPortFrom(node.addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatalf("listen on %s: %v", node.name, err)
	}
	t.Cleanup(func() { _ = s.l.Close() })
	s.to = netip.MustParseAddrPort(s.l.Addr().String())
	go func() {
		for {
			c, err := s.l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, c.RemoteAddr().String())
			_ = c.Close()
		}
	}()
	return s
}

// seenBy connects to a listener and returns the source that it saw.
func (p *place) seenBy(s *listener) (netip.Addr, error) {
	c, err := p.dial("tcp4", s.to, answerPatience)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close() //nolint:errcheck // done with it
	if err := c.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return netip.Addr{}, err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return netip.Addr{}, err
	}
	seen, err := netip.ParseAddrPort(string(b))
	return seen.Addr(), err
}

// refused reports whether a connection was answered by a refusal, and not lost.
func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
