package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/netns"
)

// Endpoint is one side of a measurement.
type Endpoint struct {
	NS    *netns.NS
	Addr  netip.Addr // its own address; the client's may be left out
	Label string     // how it is shown: "default/client"
}

// connectTimeout bounds how long a connection may take to come about. A lab is
// one machine: if a SYN and two repeats of it (after 1 s and 3 s, RFC 6298) got
// no answer, there will be none.
const connectTimeout = 4 * time.Second

// stuckTimeout is how long one read or write may make no progress before it
// looks at the clock and the context.
const stuckTimeout = 200 * time.Millisecond

// pair is one TCP connection with both of its ends. They are plain blocking
// sockets: a measurement that goes through the runtime's poller would count the
// poller's wake-ups among the network's.
type pair struct {
	client, server *os.File
}

// connect opens a listener in the server's namespace and a connection to it
// from the client's, and closes the listener.
func connect(ctx context.Context, client, server Endpoint) (*pair, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	l, err := listen(ctx, server)
	if err != nil {
		return nil, err
	}
	defer l.Close() //nolint:errcheck // has done its work
	c, err := dial(ctx, client, l.Addr())
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // its descriptor is duplicated
	if deadline, ok := ctx.Deadline(); ok {
		_ = l.SetDeadline(deadline)
	}
	s, err := l.AcceptTCP()
	if err != nil {
		return nil, fmt.Errorf("accept at %s: %w", server.Label, err)
	}
	defer s.Close() //nolint:errcheck // its descriptor is duplicated
	p := &pair{}
	if p.client, err = blocking(c); err != nil {
		return nil, fmt.Errorf("socket of %s: %w", client.Label, err)
	}
	if p.server, err = blocking(s); err != nil {
		_ = p.client.Close()
		return nil, fmt.Errorf("socket of %s: %w", server.Label, err)
	}
	return p, nil
}

func listen(ctx context.Context, server Endpoint) (*net.TCPListener, error) {
	var l net.Listener
	err := server.NS.Do(func() error {
		var err error
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", netip.AddrPortFrom(server.Addr, 0).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", server.Label, err)
	}
	return l.(*net.TCPListener), nil
}

func dial(ctx context.Context, client Endpoint, to net.Addr) (*net.TCPConn, error) {
	d := net.Dialer{}
	if client.Addr.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(client.Addr, 0))
	}
	var c net.Conn
	err := client.NS.Do(func() error {
		var err error
		c, err = d.DialContext(ctx, "tcp4", to.String()) // a literal address is dialled on this thread
		return err
	})
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("connect from %s: %w: %w", client.Label, err, ctx.Err())
	}
	if err != nil {
		return nil, fmt.Errorf("connect from %s: %w", client.Label, err)
	}
	return c.(*net.TCPConn), nil
}

// blocking duplicates a connection's descriptor and takes it from the poller.
func blocking(c *net.TCPConn) (*os.File, error) {
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	timeout := unix.NsecToTimeval(stuckTimeout.Nanoseconds())
	err = errors.Join(
		unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout),
	)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (p *pair) close() {
	_ = p.client.Close()
	_ = p.server.Close()
}

// stuck reports whether a read or write only ran into stuckTimeout.
func stuck(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }
