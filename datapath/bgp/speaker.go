package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// What a speaker process may use, so that hundreds fit on one machine. A lab's
// speaker holds some hundred routes; the collector has nearly nothing to do
// once they are learnt. Until then it would take a third of the CPU time of a
// hundred speakers that start together, if it were as strict.
const (
	startPercent     = 400
	gcPercent        = 20
	memoryLimitBytes = 48 << 20 // soft: the collector works harder above it
	// maxProcs: threads that look for work among each other's cost a fifth of
	// the CPU time of twenty speakers that start together.
	maxProcs = 1
)

const (
	// settle collects a burst of events into one pass over the routes; the more
	// routes there are, the longer the burst and the dearer the pass, whence
	// settlePerRoute for each on top.
	settle         = 5 * time.Millisecond
	settlePerRoute = 500 * time.Microsecond
	// kernelSettle does the same for changes of links and others' routes,
	// which come by the hundred when pods start.
	kernelSettle = 100 * time.Millisecond
	// retry is when routes that could not be installed are tried again:
	// calico's "scan time 2" of bird's kernel protocol.
	retry = 2 * time.Second
	// goodbye is how long closing the sessions may take.
	goodbye = 5 * time.Second
	// maxLineBytes bounds one configuration line: some 100 bytes a peer.
	maxLineBytes = 8 << 20
)

// command is one line of a speaker's input.
type command struct {
	datapath.Speaker
	Shutdown bool `json:"shutdown,omitempty"`
	err      error
}

// RunSpeaker serves one node's BGP in the network namespace of the process,
// which it takes over: it sets the runtime's memory limits and never ends
// gobgp's goroutines. Each line of in is a [datapath.Speaker] that replaces the
// one before; sessions and routes that it does not change are left alone. Each
// line of out is an [Event].
//
// It returns nil when in ends, leaving the learnt routes in the kernel and the
// peers believing in a restart; and after {"shutdown":true}, when sessions are
// closed with a NOTIFICATION and the learnt routes are gone.
func RunSpeaker(ctx context.Context, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(startPercent)
	debug.SetMemoryLimit(memoryLimitBytes)
	runtime.GOMAXPROCS(min(maxProcs, runtime.GOMAXPROCS(0)))
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &speaker{
		sessions: newSessions(),
		fib:      fib{h: h, learned: map[netip.Prefix]netip.Addr{}, keepStale: true},
		status:   map[netip.Addr]*peerState{},
		out:      json.NewEncoder(out),
		bgp:      make(chan *api.WatchEventResponse),
		kernel:   make(chan struct{}, 1),
		pass:     time.NewTimer(time.Hour),
		sweep:    time.NewTimer(time.Hour),
	}
	s.pass.Stop()
	s.sweep.Stop() // starts with the first configuration
	if err := watchKernel(ctx, s.kernel); err != nil {
		return err
	}
	return s.run(ctx, readCommands(ctx, in))
}

// speaker is the state of RunSpeaker; one goroutine owns it.
type speaker struct {
	sessions *sessions
	fib      fib
	status   map[netip.Addr]*peerState
	out      *json.Encoder
	outErr   error
	bgp      chan *api.WatchEventResponse
	kernel   chan struct{}
	pass     *time.Timer // when to make a pass over the routes
	passAt   time.Time   // zero: not planned
	sweep    *time.Timer
	routes   map[netip.Prefix]Route // as last told
	last     Sync
	lastErr  string
}

type peerState struct {
	PeerStatus
	endOfRIB bool
}

func (s *speaker) run(ctx context.Context, commands <-chan command) error {
	for s.outErr == nil {
		select {
		case c, ok := <-commands:
			if !ok {
				return ctx.Err()
			}
			if c.err != nil {
				return c.err
			}
			if c.Shutdown {
				return s.shutdown(ctx)
			}
			s.configure(ctx, c.Speaker)
		case ev := <-s.bgp:
			s.handle(ctx, ev)
		case <-s.kernel:
			s.fib.forget()
			s.plan(kernelSettle)
		case <-s.pass.C:
			s.sync()
		case <-s.sweep.C:
			s.started()
			s.plan(0)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("write event: %w", s.outErr)
}

// readCommands decodes in line by line; the channel closes at its end.
func readCommands(ctx context.Context, in io.Reader) <-chan command {
	out := make(chan command)
	send := func(c command) bool {
		select {
		case out <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(out)
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, maxLineBytes)
		for lines.Scan() {
			var c command
			if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
				c.err = fmt.Errorf("read configuration: %w", err)
			}
			if !send(c) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			send(command{err: fmt.Errorf("read configuration: %w", err)})
		}
	}()
	return out
}

func (s *speaker) emit(e Event) {
	if s.outErr == nil {
		s.outErr = s.out.Encode(e)
	}
}

func (s *speaker) configure(ctx context.Context, cfg datapath.Speaker) {
	wasStarted := s.sessions.started
	err := s.sessions.configure(ctx, cfg, func(ev *api.WatchEventResponse) {
		select {
		case s.bgp <- ev:
		case <-ctx.Done():
		}
	})
	reply := Event{Kind: EventConfigured}
	if err != nil {
		reply.Error = err.Error()
	}
	if !errors.Is(err, ErrIdentity) && s.sessions.started {
		s.fib.forget()
		s.fib.accept, s.fib.tunnel, s.fib.src = cfg.Accept, cfg.Tunnel, cfg.InstallSrc
		s.reconcileStatus()
		s.plan(0)
		if !wasStarted {
			s.sweep.Reset(SweepAfter)
		}
	}
	s.emit(reply)
}

// reconcileStatus makes the list of peers equal to the configured ones.
func (s *speaker) reconcileStatus() {
	for addr, p := range s.sessions.peers {
		if have, ok := s.status[addr]; ok {
			have.Name, have.External = p.Name, p.External
			continue
		}
		st := &peerState{PeerStatus: PeerStatus{Name: p.Name, Address: addr, State: Idle, Since: time.Now(), External: p.External}}
		s.status[addr] = st
		s.emit(Event{Kind: EventPeer, Peer: &st.PeerStatus})
	}
	for addr, st := range s.status {
		if _, ok := s.sessions.peers[addr]; ok {
			continue
		}
		delete(s.status, addr)
		st.State, st.Since = Removed, time.Now()
		s.emit(Event{Kind: EventPeer, Peer: &st.PeerStatus})
	}
}

// plan makes a pass over the routes happen within d.
func (s *speaker) plan(d time.Duration) {
	at := time.Now().Add(d)
	if s.passAt.IsZero() || at.Before(s.passAt) {
		s.passAt = at
		s.pass.Reset(d)
	}
}

// sync makes one pass over the routes and reports what came of it.
func (s *speaker) sync() {
	s.passAt = time.Time{}
	now := s.count()
	if now.Settled && s.fib.keepStale {
		s.started()
	}
	res := s.fib.sync()
	s.reportRoutes(res.routes)
	now.Routes, now.Unresolved = len(res.routes), res.unresolved
	if now != s.last {
		s.emit(Event{Kind: EventSync, Sync: &now})
		s.last = now
	}
	said := ""
	if res.err != nil {
		said = res.err.Error()
		s.plan(retry)
	}
	if said != s.lastErr && said != "" {
		s.emit(Event{Kind: EventError, Error: said})
	}
	s.lastErr = said
}

// started ends the time in which routes of an earlier speaker may yet be learnt
// and memory is spent on speed.
func (s *speaker) started() {
	s.fib.keepStale = false
	s.sweep.Stop()
	debug.SetGCPercent(gcPercent)
	debug.FreeOSMemory()
}

// reportRoutes tells how the routes differ from those last told.
func (s *speaker) reportRoutes(now map[netip.Prefix]Route) {
	for _, p := range sortedPrefixes(now) {
		if r := now[p]; s.routes[p] != r {
			s.emit(Event{Kind: EventRoute, Route: &r})
		}
	}
	for _, p := range sortedPrefixes(s.routes) {
		if _, still := now[p]; !still {
			r := s.routes[p]
			r.Removed = true
			s.emit(Event{Kind: EventRoute, Route: &r})
		}
	}
	s.routes = now
}

func (s *speaker) count() Sync {
	c := Sync{Peers: len(s.status), Settled: s.sessions.started}
	for addr, st := range s.status {
		if st.State == Established {
			c.Established++
		}
		if s.sessions.peers[addr].External {
			continue
		}
		c.Settled = c.Settled && st.State == Established && st.endOfRIB
	}
	return c
}

// shutdown says goodbye to every peer and takes the learnt routes away.
func (s *speaker) shutdown(ctx context.Context) error {
	if !s.sessions.started {
		return nil // never told which routes are its own
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.sessions.stop(ctx) }()
	var err error
	select {
	case err = <-stopped:
	case <-time.After(goodbye):
		err = fmt.Errorf("stop BGP: not done after %s", goodbye)
	}
	return errors.Join(err, s.fib.clear())
}
