package echo

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoSCTP reports a kernel without SCTP.
var errNoSCTP = errors.New("this kernel has no SCTP")

// sctpServer echoes one-to-one style SCTP associations (RFC 6458 §4), which
// behave like TCP connections.
type sctpServer struct {
	f   *os.File // non-blocking, so that the runtime's poller waits for it
	raw syscall.RawConn

	mu     sync.Mutex
	closed bool
	conns  map[*os.File]struct{}
}

// listenSCTP opens a port in the namespace of the calling thread.
func listenSCTP(port int) (*sctpServer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return nil, errNoSCTP
	}
	if err != nil {
		return nil, fmt.Errorf("SCTP socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("sctp:%d", port))
	s := &sctpServer{f: f, conns: map[*os.File]struct{}{}}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err == nil {
		s.raw, err = f.SyscallConn()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("listen on SCTP port: %w", err)
	}
	return s, nil
}

// Close ends serve and every association.
func (s *sctpServer) Close() error {
	err := s.f.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	return err
}

func (s *sctpServer) serve(log *slog.Logger) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		var c *os.File
		var aerr error
		err := s.raw.Read(func(fd uintptr) bool {
			var nfd int
			nfd, _, aerr = unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if aerr == nil {
				c = os.NewFile(uintptr(nfd), "sctp")
			}
			return !errors.Is(aerr, unix.EAGAIN)
		})
		if err != nil {
			return // closed
		}
		if aerr != nil {
			if !errors.Is(aerr, unix.EINTR) && !errors.Is(aerr, unix.ECONNABORTED) {
				log.Error("accept SCTP association", "err", aerr)
				return
			}
			continue
		}
		if s.track(c) {
			wg.Go(func() { s.echo(c) })
		}
	}
}

func (s *sctpServer) track(c *os.File) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *sctpServer) echo(c *os.File) {
	buf := chunks.Get().(*[chunkSize]byte)
	_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, buf[:]) // ends with the association, whoever ends it
	chunks.Put(buf)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close()
}
