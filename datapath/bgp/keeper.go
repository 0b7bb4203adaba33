package bgp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"slipway/datapath"
)

// A speaker that ended by itself is started again after firstRest, and after
// twice as long each time up to lastRest, until one lives as long as proven.
const (
	firstRest = 100 * time.Millisecond
	lastRest  = 10 * time.Second
	proven    = 10 * time.Second
	// endPatience is how long one may take to end that could not be configured.
	endPatience = 5 * time.Second
)

// Keeper keeps one node's BGP speaker running, as the supervisor of a real
// node's daemon does.
type Keeper struct {
	start  func() (*Process, error) // one that is not configured yet
	failed func(error)              // told of each end that nobody asked for
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	changing sync.Mutex // held while a process is started or configured
	cfg      datapath.Speaker

	mu       sync.Mutex
	proc     *Process // the present one, or the last
	restarts int
	lastEnd  error
	replaced chan struct{} // closed and replaced with each new process
}

// Keep starts a speaker and configures it, and from then on starts another in
// its place whenever it ends by itself, until ctx ends or it is stopped. start
// makes a process that is not configured yet; failed is told of each end that
// nobody asked for.
func Keep(ctx context.Context, cfg datapath.Speaker, start func() (*Process, error), failed func(error)) (*Keeper, error) {
	k := &Keeper{cfg: cfg, start: start, failed: failed, done: make(chan struct{}), replaced: make(chan struct{})}
	p, err := k.start()
	if err != nil {
		return nil, err
	}
	k.proc = p
	if err := p.Configure(cfg); err != nil {
		ctx, cancel := context.WithTimeout(ctx, endPatience)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("configure: %w", err), p.Stop(ctx))
	}
	ctx, cancel := context.WithCancel(ctx)
	k.cancel = cancel
	go k.run(ctx)
	return k, nil
}

// run starts the speaker again whenever it has ended, until ctx does.
func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	rest, born := firstRest, time.Now()
	for {
		p := k.Process()
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		if ctx.Err() != nil {
			return // it was let go
		}
		k.ended(p.Err())
		if time.Since(born) >= proven {
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
func (k *Keeper) again(ctx context.Context) error {
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

func (k *Keeper) ended(err error) {
	k.failed(err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lastEnd = err
}

// Process is the present one, or the last.
func (k *Keeper) Process() *Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.proc
}

// Take hands on a new wanted state; to a speaker that is about to be started
// again, when it is. false: the speaker would have to become another, so that a
// new one has to take its place.
func (k *Keeper) Take(cfg datapath.Speaker) (bool, error) {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.cfg = cfg
	err := k.Process().Configure(cfg)
	if errors.Is(err, ErrEnded) {
		return true, nil
	}
	if errors.Is(err, ErrIdentity) {
		return false, nil
	}
	return true, err
}

// Stop ends the speaker and takes its routes away, unless it has crashed.
func (k *Keeper) Stop(ctx context.Context) error {
	k.cancel()
	<-k.done
	p := k.Process()
	if p.Err() != nil {
		return nil
	}
	return p.Stop(ctx)
}

// Wait returns when want holds of the running speaker, or ctx ends.
func (k *Keeper) Wait(ctx context.Context, want func(Status) bool) error {
	for {
		k.mu.Lock()
		p, replaced := k.proc, k.replaced
		k.mu.Unlock()
		err := p.Wait(ctx, want)
		if !errors.Is(err, ErrEnded) {
			return err
		}
		select {
		case <-replaced:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// State is the process's number, 0 if none runs, how often it was started again,
// what the speaker told, and how the last one ended. The routes of one that has
// ended are still in the kernel.
func (k *Keeper) State() (pid, restarts int, st Status, lastEnd error) {
	k.mu.Lock()
	p := k.proc
	restarts, lastEnd = k.restarts, k.lastEnd
	k.mu.Unlock()
	if p.Err() == nil {
		pid = p.Pid()
	}
	return pid, restarts, p.Status(), lastEnd
}
