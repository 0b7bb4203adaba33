package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/netns"
)

// A speaker that ended by itself is started again after firstRest, and after
// twice as long each time up to lastRest, until one lives as long as steady.
const (
	firstRest = 100 * time.Millisecond
	lastRest  = 10 * time.Second
	steady    = 10 * time.Second
	// endPatience is how long one may take to end that could not be configured.
	endPatience = 5 * time.Second
)

// keeper keeps one node's BGP speaker running, as the supervisor of a real
// node's daemon does.
type keeper struct {
	start  func() (*bgp.Process, error) // one that is not configured yet
	failed func(error)                  // told of each end that nobody asked for
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	changing sync.Mutex // held while a process is started or configured
	cfg      datapath.Speaker

	mu       sync.Mutex
	proc     *bgp.Process // the present one, or the last
	restarts int
	lastEnd  error
	replaced chan struct{} // closed and replaced with each new process
}

// keep starts a node's speaker and configures it.
func (s *server) keep(node string, c speakerConfig) (*keeper, error) {
	log := s.cfg.Log.With("node", node)
	k := &keeper{
		cfg: c.speaker, done: make(chan struct{}), replaced: make(chan struct{}),
		failed: func(err error) { log.Error("BGP speaker ended by itself", "err", err) },
		start: func() (*bgp.Process, error) {
			ns, err := netns.Open(c.netns)
			if err != nil {
				return nil, err
			}
			defer ns.Close() //nolint:errcheck // the child is in the namespace by itself
			return bgp.Start(s.ctx, ns, s.cfg.Speaker, nil, log)
		},
	}
	p, err := k.start()
	if err != nil {
		return nil, err
	}
	k.proc = p
	if err := p.Configure(c.speaker); err != nil {
		ctx, cancel := context.WithTimeout(s.ctx, endPatience)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("configure: %w", err), p.Stop(ctx))
	}
	ctx, cancel := context.WithCancel(s.ctx)
	k.cancel = cancel
	go k.run(ctx)
	return k, nil
}

// run starts the speaker again whenever it has ended, until ctx does.
func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	rest, born := firstRest, time.Now()
	for {
		p := k.present()
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		if ctx.Err() != nil {
			return // it was let go
		}
		k.ended(p.Err())
		if time.Since(born) >= steady {
			rest = firstRest
		}
		for down := true; down; rest = min(2*rest, lastRest) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
			born = time.Now()
			err := k.again(ctx)
			if down = err != nil; down && ctx.Err() == nil {
				k.ended(fmt.Errorf("start again: %w", err))
			}
		}
	}
}

// again puts a new process in the place of one that ended.
func (k *keeper) again(ctx context.Context) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	p, err := k.start()
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.proc = p
	k.restarts++
	close(k.replaced)
	k.replaced = make(chan struct{})
	k.mu.Unlock()
	if err := p.Configure(k.cfg); err != nil {
		ctx, cancel := context.WithTimeout(ctx, endPatience)
		defer cancel()
		return errors.Join(err, p.Stop(ctx))
	}
	return nil
}

func (k *keeper) ended(err error) {
	k.failed(err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastEnd = err
}

func (k *keeper) present() *bgp.Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.proc
}

// configure hands on a new wanted state; to a speaker that is about to be
// started again, when it is.
func (k *keeper) configure(cfg datapath.Speaker) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.cfg = cfg
	err := k.present().Configure(cfg)
	if errors.Is(err, bgp.ErrEnded) {
		return nil
	}
	return err
}

// stop ends the speaker and takes its routes away, unless it has crashed.
func (k *keeper) stop(ctx context.Context) error {
	k.cancel()
	<-k.done
	p := k.present()
	if p.Err() != nil {
		return nil
	}
	return p.Stop(ctx)
}

// wait returns when want holds of the running speaker, or ctx ends.
func (k *keeper) wait(ctx context.Context, want func(bgp.Status) bool) error {
	for {
		k.mu.Lock()
		p, replaced := k.proc, k.replaced
		k.mu.Unlock()
		err := p.Wait(ctx, want)
		if !errors.Is(err, bgp.ErrEnded) {
			return err
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// state is what the speaker has now. The routes of one that has ended are still
// in the kernel.
func (k *keeper) state() SpeakerState {
	k.mu.Lock()
	p, s := k.proc, SpeakerState{Restarts: k.restarts}
	if k.lastEnd != nil {
		s.LastEnd = k.lastEnd.Error()
	}
	k.mu.Unlock()
	st := p.Status()
	s.Peers, s.Established, s.Routes, s.Synced, s.Detail = len(st.Peers), st.Sync.Established, st.Sync.Routes, st.Sync.Settled, st
	if p.Err() == nil {
		s.PID = p.Pid()
	}
	for _, peer := range st.Peers {
		if !peer.External && peer.State != bgp.Established {
			s.Down = append(s.Down, peer.Name)
		}
	}
	return s
}
