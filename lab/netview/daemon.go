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

// daemonPatience is how long the daemon may take to answer before it counts as
// stopped: it answers from memory, in a millisecond.
const daemonPatience = 300 * time.Millisecond

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
	short, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	st, err := d.client.Status(short)
	err = silence(ctx, err)
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
	short, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	t, err := d.client.Tunnel(short, node)
	return t, silence(ctx, err)
}

// silence words an error of the daemon's patience running out.
func silence(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w within %s", errSilent, daemonPatience)
	}
	return err
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
