package echo

import (
	"context"
	"net"
	"strconv"
	"sync"

	"slipway/topology"
)

// tcpListener is one pod's TCP port. It keeps track of its connections, because
// a connection that outlived its pod would keep the namespace alive.
type tcpListener struct {
	*net.TCPListener
	pod topology.Pod

	mu     sync.Mutex
	closed bool
	conns  map[*tcpConn]struct{} // nil while there are none
}

// listenTCP opens a port in the namespace of the calling thread.
func listenTCP(ctx context.Context, pod topology.Pod, port int) (*tcpListener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false) // Go's default; pods speak plain TCP
	l, err := lc.Listen(ctx, "tcp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return &tcpListener{TCPListener: l.(*net.TCPListener), pod: pod}, nil
}

type podKey struct{}

// context carries the pod to the handler.
func (l *tcpListener) context() context.Context {
	return context.WithValue(context.Background(), podKey{}, &l.pod)
}

// Accept implements net.Listener.
func (l *tcpListener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	tc := &tcpConn{TCPConn: c, l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	if l.conns == nil {
		l.conns = map[*tcpConn]struct{}{}
	}
	l.conns[tc] = struct{}{}
	return tc, nil
}

// Close stops listening and ends the connections that are open.
func (l *tcpListener) Close() error {
	err := l.TCPListener.Close()
	l.mu.Lock()
	l.closed = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		_ = c.TCPConn.Close()
	}
	return err
}

// tcpConn leaves its listener's books when it is closed.
type tcpConn struct {
	*net.TCPConn
	l *tcpListener
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	if len(c.l.conns) == 0 {
		c.l.conns = nil
	}
	c.l.mu.Unlock()
	return c.TCPConn.Close()
}
