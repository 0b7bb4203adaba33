package netview

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"slipway/lab/daemon"
)

// The daemon answers from memory, in a millisecond, but on a machine that is slow
// or busy much later. After lookEvery it is looked whether it was stopped, and
// after daemonPatience it counts as if it was.
const (
	lookEvery      = 300 * time.Millisecond
	daemonPatience = 20 * time.Second
)

// daemonView is what the lab's daemon says, asked once.
type daemonView struct {
	client *daemon.Client

	mu     sync.Mutex // of what follows
	asked  bool
	answer daemon.Status
	err    error
}

// errSilent says that the daemon is there but does not answer.
var errSilent = errors.New("slipwayd does not answer")

func (d *daemonView) status(ctx context.Context) (daemon.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked {
		return d.answer, d.err
	}
	var st daemon.Status
	err := d.ask(ctx, func(ctx context.Context) (err error) {
		st, err = d.client.Status(ctx)
		return err
	})
	if ctx.Err() == nil {
		d.answer, d.err, d.asked = st, err, true
	}
	return st, err
}

// tunnel asks for one node's tunnel, unless the daemon is known not to answer.
func (d *daemonView) tunnel(ctx context.Context, node string) (daemon.Tunnel, error) {
	if _, err := d.status(ctx); err != nil {
		return daemon.Tunnel{}, err
	}
	var t daemon.Tunnel
	err := d.ask(ctx, func(ctx context.Context) (err error) {
		t, err = d.client.Tunnel(ctx, node)
		return err
	})
	return t, err
}

// ask puts a question to the daemon that ends when it turns out to be stopped.
func (d *daemonView) ask(ctx context.Context, question func(context.Context) error) error {
	asking, cancel := context.WithTimeoutCause(ctx, daemonPatience, fmt.Errorf("%w within %s", errSilent, daemonPatience))
	defer cancel()
	asking, silent := context.WithCancelCause(asking)
	defer silent(nil)
	answered := make(chan error, 1)
	go func() { answered <- question(asking) }()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case err := <-answered:
			if err != nil && asking.Err() != nil && ctx.Err() == nil {
				return context.Cause(asking)
			}
			return err
		case <-look.C:
			if d.client.Stopped(asking) {
				silent(fmt.Errorf("%w: its process is stopped", errSilent))
			}
		}
	}
}

// relayed reports whether a relay carries frames of a fabric's port, and why not.
func (d *daemonView) relayed(ctx context.Context, port string) error {
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(st.Relayed, port) {
		return fmt.Errorf("slipwayd does not run the relay of %s", port)
	}
	return nil
}

// Speakers are the BGP speakers by node, each with the peers that it has no
// session with; an error if the daemon does not answer.
func (v *View) Speakers() (map[string]daemon.SpeakerState, error) {
	st, err := v.daemon.status(v.ctx)
	return st.Speakers, err
}
