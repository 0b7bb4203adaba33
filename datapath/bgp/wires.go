package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// Why gobgp does not speak to the peers itself: its dialler waits a random
// 1-2 s before the first attempt and at least as long before each further one
// (gobgp pkg/server/fsm.go, connectLoop), which no setting shortens. The side
// that waits for connections has no such rest. So gobgp waits for all its peers,
// on a port that is not BGP's, and the wires dial and accept in its place: they
// carry the bytes of each session between the peer and gobgp, which knows the
// peer by a loopback address and closes connections from any other.

const (
	// innerPort is where gobgp listens: at the address that the peers know,
	// which it takes for its own side of the session.
	innerPort = 10179
	// A peer that does not answer is tried again after firstRetry, then after
	// twice as long each time, up to lastRetry. A refused attempt is a packet
	// each way.
	firstRetry = 10 * time.Millisecond
	lastRetry  = 250 * time.Millisecond
	// dialTimeout bounds one attempt towards a peer that says nothing.
	dialTimeout = 3 * time.Second
	// holdFor is how long a peer that connects early is kept waiting: longer
	// than gobgp rests after it has lost a session.
	holdFor = 5 * time.Second
	// drainFor is how long the last words to the peers may take: a NOTIFICATION
	// over loopback and one write.
	drainFor = 500 * time.Millisecond
	// steady is how long a connection lives that was worth making.
	steady = 2 * time.Second
	// apart is how far the next attempts of the two may be apart at most.
	apart = 500 * time.Millisecond
	// longest is the largest BGP message (RFC 4271 §4).
	longest = 4096
)

// firstInner is the first of the loopback addresses that stand for peers.
var firstInner = netip.AddrFrom4([4]byte{127, 64, 0, 1})

// wires are the connections between a node's peers and its gobgp.
type wires struct {
	listen   netip.Addr
	listener net.Listener
	next     netip.Addr
	carried  sync.WaitGroup

	mu      sync.Mutex
	byPeer  map[netip.Addr]*wire
	byInner map[netip.Addr]*wire
}

// wire is what carries the sessions with one peer, one at a time.
type wire struct {
	of          *wires
	peer, inner netip.Addr
	hops        int // TTL of what we send; 0: the kernel's default
	cancel      context.CancelFunc

	mu      sync.Mutex
	waiting bool          // gobgp waits for the peer to connect
	taken   bool          // a connection is being carried
	changed chan struct{} // closed and replaced when either changes
}

// openWires listens for peers on the address, which may be unspecified.
func openWires(listen netip.Addr) (*wires, error) {
	l, err := net.Listen("tcp4", netip.AddrPortFrom(listen, port).String())
	if err != nil {
		return nil, err
	}
	return &wires{listen: listen, listener: l, next: firstInner, byPeer: map[netip.Addr]*wire{}, byInner: map[netip.Addr]*wire{}}, nil
}

// accept takes connections from known peers until the listener is closed.
func (ws *wires) accept(ctx context.Context) {
	for {
		conn, err := ws.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, or the peer has left already
			pause(ctx, firstRetry)
			continue
		}
		ws.mu.Lock()
		w := ws.byPeer[remoteOf(conn)]
		ws.mu.Unlock()
		if w == nil {
			_ = conn.Close()
			continue
		}
		go w.take(ctx, conn)
	}
}

// add begins a wire and returns the address under which gobgp is to know the peer.
func (ws *wires) add(ctx context.Context, p datapath.Peer, internal bool) netip.Addr {
	ctx, cancel := context.WithCancel(ctx)
	ws.mu.Lock()
	w := &wire{of: ws, peer: p.Address, inner: ws.next, cancel: cancel, changed: make(chan struct{})}
	if !internal {
		w.hops = 1 // the next router and no further, as everybody's eBGP
	}
	ws.next = ws.next.Next()
	ws.byPeer[w.peer], ws.byInner[w.inner] = w, w
	ws.mu.Unlock()
	if !p.Passive {
		go w.dial(ctx)
	}
	return w.inner
}

// remove ends a wire's attempts. What it carries ends when gobgp closes it.
func (ws *wires) remove(peer netip.Addr) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byPeer[peer]; w != nil {
		w.cancel()
		delete(ws.byPeer, peer)
		delete(ws.byInner, w.inner)
	}
}

// innerOf is the address under which gobgp knows a peer.
func (ws *wires) innerOf(peer netip.Addr) netip.Addr {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byPeer[peer]; w != nil {
		return w.inner
	}
	return netip.Addr{}
}

// peerOf translates back; the address is invalid if gobgp's peer is no more.
func (ws *wires) peerOf(inner string) netip.Addr {
	addr, err := netip.ParseAddr(inner)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byInner[addr]; err == nil && w != nil {
		return w.peer
	}
	return netip.Addr{}
}

// setWaiting says whether gobgp waits for the peer to connect.
func (ws *wires) setWaiting(peer netip.Addr, waiting bool) {
	ws.mu.Lock()
	w := ws.byPeer[peer]
	ws.mu.Unlock()
	if w != nil {
		w.set(func() { w.waiting = waiting })
	}
}

// drain waits until everything that gobgp has said to its peers is on its way,
// for as long as that takes on a node whose address is still there. Where it is
// not, not even gobgp's end of a wire hears of the other's.
func (ws *wires) drain() {
	sent := make(chan struct{})
	go func() {
		ws.carried.Wait()
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(drainFor):
	}
}

func (w *wire) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// open waits until gobgp has use for a connection.
func (w *wire) open(ctx context.Context) error {
	for {
		w.mu.Lock()
		open, changed := w.waiting && !w.taken, w.changed
		w.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// claim makes the caller the one whose connection is carried.
func (w *wire) claim() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting || w.taken {
		return false
	}
	w.taken = true
	return true
}

// dial keeps a connection to the peer whenever gobgp wants one.
func (w *wire) dial(ctx context.Context) {
	d := net.Dialer{Timeout: dialTimeout}
	if !w.of.listen.IsUnspecified() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.of.listen, 0))
	}
	to := netip.AddrPortFrom(w.peer, port).String()
	for wait := firstRetry; w.open(ctx) == nil; wait = min(2*wait, lastRetry) {
		begin := time.Now()
		if conn, err := d.DialContext(ctx, "tcp4", to); err == nil {
			w.carry(conn)
			// Two that both dial may each have closed the other's connection:
			// let chance decide who is first the next time.
			pause(ctx, rand.N(apart))
		}
		if time.Since(begin) > steady {
			wait = firstRetry
		}
		pause(ctx, wait+rand.N(wait/4))
	}
}

// take carries a connection that the peer made, as soon as gobgp wants one.
func (w *wire) take(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, holdFor)
	defer cancel()
	if w.open(ctx) != nil {
		_ = conn.Close()
		return
	}
	w.carry(conn)
}

// carry hands a connection to gobgp, unless another one came first, and returns
// when either side has closed it.
func (w *wire) carry(peer net.Conn) {
	defer peer.Close() //nolint:errcheck // everything was written
	if !w.claim() {
		return
	}
	defer w.set(func() { w.taken = false })
	w.of.carried.Add(1)
	defer w.of.carried.Done()
	if w.hops > 0 && setTTL(peer, w.hops) != nil {
		return // it has closed already
	}
	from := net.Dialer{Timeout: dialTimeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.inner, 0))}
	inner, err := from.Dial("tcp4", netip.AddrPortFrom(localOf(peer), innerPort).String())
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(peer, inner)
		_ = peer.Close()
	}()
	forward(inner, peer)
	_ = inner.Close()
	<-done
}

// forward copies until either end is closed. It does not leave the copying to
// the kernel, as io.Copy would: that takes a pipe for each direction.
func forward(to io.Writer, from io.Reader) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, longest))
}

func setTTL(conn net.Conn, hops int) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("set TTL: %T is no TCP connection", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, hops) })
	return errors.Join(err, set)
}

func remoteOf(conn net.Conn) netip.Addr { return addrOf(conn.RemoteAddr()) }
func localOf(conn net.Conn) netip.Addr  { return addrOf(conn.LocalAddr()) }

func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
