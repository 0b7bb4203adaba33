package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"slipway/datapath"
	"slipway/internal/netns"
)

// ErrEnded reports a speaker process that is no longer there.
var ErrEnded = errors.New("BGP speaker ended")

// letGo is how long a speaker whose input has ended may take to leave before
// it is killed.
const letGo = 2 * time.Second

// answer is how long a speaker may take to answer a configuration.
const answer = time.Minute

// Status is what a speaker has told so far.
type Status struct {
	Peers  []PeerStatus // by address
	Routes []Route      // in the kernel, by prefix
	Sync   Sync         // as of the last pass over the routes
	// LastError is the last thing that the speaker could not do yet.
	LastError string
}

// Process is a running speaker, seen from the daemon.
type Process struct {
	ns    string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   *slog.Logger
	done  chan struct{}

	configuring sync.Mutex // one configuration at a time
	replies     chan string

	mu      sync.Mutex
	peers   map[netip.Addr]PeerStatus
	routes  map[netip.Prefix]Route
	sync    Sync
	lastErr string
	stderr  string        // last line
	err     error         // why it ended
	changed chan struct{} // closed and replaced at each change
}

// Start runs argv, which must call [RunSpeaker] on its standard input and
// output, inside ns with the given environment (nil: ours). When ctx ends, or
// this process does, the speaker's input ends and it leaves, its routes staying
// in the kernel.
func Start(ctx context.Context, ns *netns.NS, argv, env []string, log *slog.Logger) (*Process, error) {
	p := &Process{
		ns: ns.Name(), log: log.With("netns", ns.Name()),
		done: make(chan struct{}), replies: make(chan string, 1), changed: make(chan struct{}),
		peers: map[netip.Addr]PeerStatus{}, routes: map[netip.Prefix]Route{},
	}
	p.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	p.cmd.Env = env
	p.cmd.Cancel = func() error { return p.stdin.Close() }
	p.cmd.WaitDelay = letGo
	// Out of the daemon's process group: a Ctrl-C meant for the daemon must
	// not end the speaker before the daemon has decided how.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start BGP speaker in %s: %w", p.ns, err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start BGP speaker in %s: %w", p.ns, err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start BGP speaker in %s: %w", p.ns, err)
	}
	if err := ns.Do(p.cmd.Start); err != nil { // the child stays in ns
		return nil, fmt.Errorf("start BGP speaker in %s: %w", p.ns, err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.readEvents(stdout) })
	readers.Go(func() { p.readErrors(stderr) })
	go func() {
		readers.Wait() // Wait closes the pipes, so reading comes first
		p.ended(p.cmd.Wait())
	}()
	return p, nil
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended; then Err says how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is nil while the process runs, and ErrEnded with the reason afterwards.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Configure hands the speaker its wanted state and waits until it has taken it
// on. Sessions and routes follow in their own time, see Wait. ErrIdentity wants
// a new speaker. One that does not answer is killed.
func (p *Process) Configure(cfg datapath.Speaker) error {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	if err := p.send(command{Speaker: cfg}); err != nil {
		return fmt.Errorf("configure BGP speaker in %s: %w", p.ns, err)
	}
	select {
	case said := <-p.replies:
		switch said {
		case "":
			return nil
		case ErrIdentity.Error():
			return fmt.Errorf("configure BGP speaker in %s: %w", p.ns, ErrIdentity)
		default:
			return fmt.Errorf("configure BGP speaker in %s: %s", p.ns, said)
		}
	case <-p.done:
		return fmt.Errorf("configure BGP speaker in %s: %w", p.ns, p.Err())
	case <-time.After(answer):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("configure BGP speaker in %s: no answer after %s: killed", p.ns, answer)
	}
}

func (p *Process) send(c command) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		select {
		case <-p.done: // it says more than a broken pipe
			return p.Err()
		case <-time.After(letGo):
			return err
		}
	}
	return nil
}

// Status is what the speaker has told so far; without sessions once it has ended.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status()
}

func (p *Process) status() Status {
	st := Status{Sync: p.sync, LastError: p.lastErr}
	for _, a := range slices.SortedFunc(maps.Keys(p.peers), netip.Addr.Compare) {
		st.Peers = append(st.Peers, p.peers[a])
	}
	for _, r := range sortedPrefixes(p.routes) {
		st.Routes = append(st.Routes, p.routes[r])
	}
	return st
}

// Wait returns when want holds, ctx ends or the speaker does.
func (p *Process) Wait(ctx context.Context, want func(Status) bool) error {
	for {
		p.mu.Lock()
		ok, changed := want(p.status()), p.changed
		p.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			st := p.Status()
			return fmt.Errorf("wait for BGP speaker in %s (%d of %d sessions established, %d routes): %w",
				p.ns, st.Sync.Established, st.Sync.Peers, st.Sync.Routes, ctx.Err())
		case <-p.done:
			return fmt.Errorf("wait for BGP speaker in %s: %w", p.ns, p.Err())
		}
	}
}

// Stop makes the speaker withdraw: it closes its sessions, removes the routes
// it learnt and ends. If ctx ends first it is killed, which leaves the routes.
func (p *Process) Stop(ctx context.Context) error {
	go func() { // a speaker that does not read must not hold us up
		if err := p.send(command{Shutdown: true}); err != nil && !errors.Is(err, ErrEnded) {
			p.log.Warn("BGP speaker does not listen", "error", err)
		}
		_ = p.stdin.Close()
	}()
	select {
	case <-p.done:
		if err := p.Err(); !errors.Is(err, errExit0) {
			return fmt.Errorf("stop BGP speaker in %s: %w", p.ns, err)
		}
		return nil
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("stop BGP speaker in %s: killed: %w", p.ns, ctx.Err())
	}
}

// errExit0 is the end of a speaker that had nothing to complain of.
var errExit0 = fmt.Errorf("%w as asked", ErrEnded)

func (p *Process) ended(err error) {
	p.mu.Lock()
	p.err = errExit0
	if err != nil {
		p.err = fmt.Errorf("%w: %w", ErrEnded, err)
		if p.stderr != "" {
			p.err = fmt.Errorf("%w: %s", p.err, p.stderr)
		}
	}
	// Its sessions went with it; its routes may still be there.
	for addr, peer := range p.peers {
		if peer.State != Idle {
			peer.State, peer.Since = Idle, time.Now()
			p.peers[addr] = peer
		}
	}
	p.sync.Established, p.sync.Settled = 0, false
	p.mu.Unlock()
	close(p.done)
}

func (p *Process) readErrors(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		p.log.Warn("BGP speaker says", "line", line)
		p.mu.Lock()
		p.stderr = line
		p.mu.Unlock()
	}
}

func (p *Process) readEvents(r io.Reader) {
	dec := json.NewDecoder(r)
	for {
		var e Event
		if err := dec.Decode(&e); err != nil {
			if !errors.Is(err, io.EOF) {
				p.log.Warn("BGP speaker is unreadable", "error", err)
			}
			return
		}
		if e.Kind == EventConfigured {
			p.replies <- e.Error
			continue
		}
		p.take(e)
	}
}

func (p *Process) take(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.Kind == EventPeer && e.Peer != nil:
		p.log.Debug("BGP peer", "peer", e.Peer.Name, "address", e.Peer.Address, "state", e.Peer.State)
		p.peers[e.Peer.Address] = *e.Peer
		if e.Peer.State == Removed {
			delete(p.peers, e.Peer.Address)
		}
	case e.Kind == EventRoute && e.Route != nil:
		p.log.Debug("BGP route", "prefix", e.Route.Prefix, "via", e.Route.Via, "dev", e.Route.Dev, "removed", e.Route.Removed)
		p.routes[e.Route.Prefix] = *e.Route
		if e.Route.Removed {
			delete(p.routes, e.Route.Prefix)
		}
	case e.Kind == EventSync && e.Sync != nil:
		p.sync = *e.Sync
	case e.Kind == EventError:
		p.log.Debug("BGP speaker will try again", "error", e.Error)
		p.lastErr = e.Error
	}
	close(p.changed)
	p.changed = make(chan struct{})
}
