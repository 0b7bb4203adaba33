package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connectTimeout bounds how long a connection may take to come about. A lab is
// one machine: if a SYN and two repeats of it (after 1 s and 3 s, RFC 6298) got
// no answer, there will be none.
const connectTimeout = 4 * time.Second

// stuckTimeout is how long one system call may wait before it looks at the
// clock and the context.
const stuckTimeout = 100 * time.Millisecond

// backlog is how many connections may wait to be accepted; the kernel lowers it
// to net.core.somaxconn.
const backlog = 4096

// socket is a plain blocking socket whose calls give up after stuckTimeout: a
// measurement that goes through the runtime's poller would count the poller's
// wake-ups among the network's. It belongs to who opened it, who closes it when
// nobody uses it any more.
type socket int

// open makes a socket in the namespace of the calling thread.
func open(kind int) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	s := socket(fd)
	if err := s.limit(); err != nil {
		s.close()
		return -1, err
	}
	return s, nil
}

// openAt makes a socket in the namespace of a place.
func openAt(p Place, kind int) (s socket, err error) {
	s = -1
	err = p.NS.Do(func() error {
		s, err = open(kind)
		return err
	})
	return s, err
}

func (s socket) limit() error {
	timeout := unix.NsecToTimeval(stuckTimeout.Nanoseconds())
	err := errors.Join(
		unix.SetsockoptTimeval(int(s), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptTimeval(int(s), unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout),
	)
	if err != nil {
		return fmt.Errorf("bound waiting: %w", err)
	}
	return nil
}

func (s socket) close() { _ = unix.Close(int(s)) }

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// port is the local port.
func (s socket) port() (uint16, error) {
	sa, err := unix.Getsockname(int(s))
	if err != nil {
		return 0, err
	}
	in, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("socket has an address of type %T", sa)
	}
	return uint16(in.Port), nil
}

// bindClient gives a socket its own address, and leaves the port to connect(2),
// which may share it between connections to different servers.
func (s socket) bindClient(p Place) error {
	if !p.Addr.IsValid() {
		return nil
	}
	if err := unix.SetsockoptInt(int(s), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("leave the port to connect: %w", err)
	}
	if err := unix.Bind(int(s), sockaddr(netip.AddrPortFrom(p.Addr, 0))); err != nil {
		return fmt.Errorf("bind to %s: %w", p.Addr, err)
	}
	return nil
}

// connect connects to an address. After stuckTimeout connect(2) says that it is
// still at it, and waits on when it is called again.
func (s socket) connect(ctx context.Context, to *unix.SockaddrInet4) error {
	for {
		err := unix.Connect(int(s), to)
		if !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EALREADY) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// accept takes one waiting connection; stuck if there is none.
func (s socket) accept() (socket, error) {
	fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(s), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	c := socket(fd)
	if err := c.limit(); err != nil {
		c.close()
		return -1, err
	}
	return c, nil
}

// await accepts the next connection, until the context ends.
func (s socket) await(ctx context.Context) (socket, error) {
	for {
		c, err := s.accept()
		if !stuck(err) {
			return c, err
		}
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
	}
}

// noDelay sends small messages at once.
func (s socket) noDelay() error {
	return unix.SetsockoptInt(int(s), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// listen opens a socket of either kind at a server's port.
func listen(j Job, kind int) (socket, uint16, error) {
	fail := func(s socket, err error) (socket, uint16, error) {
		if s >= 0 {
			s.close()
		}
		return -1, 0, fmt.Errorf("listen at %s (%s): %w", j.Server.Label, netip.AddrPortFrom(j.Server.Addr, j.Port), err)
	}
	s, err := openAt(j.Server, kind)
	if err != nil {
		return fail(s, err)
	}
	if kind == unix.SOCK_STREAM { // a port in TIME_WAIT from the last round
		err = unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(int(s), sockaddr(netip.AddrPortFrom(j.Server.Addr, j.Port)))
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(int(s), backlog)
	}
	if err != nil {
		return fail(s, err)
	}
	port, err := s.port()
	if err != nil {
		return fail(s, err)
	}
	return s, port, nil
}

// dial opens a socket of either kind at a client's and connects it.
func dial(ctx context.Context, j Job, kind int, to netip.AddrPort) (socket, error) {
	s, err := openAt(j.Client, kind)
	if err == nil {
		err = s.bindClient(j.Client)
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = s.noDelay()
	}
	if err == nil {
		err = s.connect(ctx, sockaddr(to))
	}
	if err != nil {
		if s >= 0 {
			s.close()
		}
		return -1, fmt.Errorf("connect from %s to %s: %w", j.Client.Label, to, err)
	}
	return s, nil
}

// stuck reports whether a call only ran into stuckTimeout.
func stuck(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

// readFull fills buf; io.EOF if the stream ended.
func (s socket) readFull(ctx context.Context, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Read(int(s), buf)
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

// writeFull hands all of buf to the kernel.
func (s socket) writeFull(ctx context.Context, buf []byte) error {
	for len(buf) > 0 {
		n, err := unix.Write(int(s), buf)
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

// memInfoDrops is the place of the drops among the nine numbers of SO_MEMINFO
// (linux include/uapi/linux/sock_diag.h, SK_MEMINFO_DROPS).
const memInfoDrops = 8

// drops is how many datagrams found the socket's buffer full.
func (s socket) drops() (uint32, error) {
	var info [memInfoDrops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("read SO_MEMINFO: %w", errno)
	}
	return info[memInfoDrops], nil
}
