package netview

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"slipway/lab"
	"slipway/lab/daemon"
)

// daemonPatience is how long the daemon may take to answer before it counts as
// stopped: it answers from memory, in a millisecond.
const daemonPatience = 300 * time.Millisecond

// daemonView is what the lab's daemon says, asked once.
type daemonView struct {
	ctx    context.Context // the view's
	lab    string
	once   sync.Once
	answer daemon.Status
	err    error
}

// errSilent says that the daemon is there but does not answer.
var errSilent = errors.New("slipwayd does not answer")

func (d *daemonView) status() (daemon.Status, error) {
	d.once.Do(func() {
		ctx, cancel := context.WithTimeout(d.ctx, daemonPatience)
		defer cancel()
		d.answer, d.err = lab.DaemonStatus(ctx, d.lab)
		d.err = silence(d.ctx, d.err)
	})
	return d.answer, d.err
}

// tunnel asks for one node's tunnel, unless the daemon is known not to answer.
func (d *daemonView) tunnel(node string) (daemon.Tunnel, error) {
	if _, err := d.status(); err != nil {
		return daemon.Tunnel{}, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, daemonPatience)
	defer cancel()
	t, err := daemon.NewClient(lab.SocketPath(d.lab)).Tunnel(ctx, node)
	return t, silence(d.ctx, err)
}

// silence words an error of the daemon's patience running out.
func silence(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w within %s", errSilent, daemonPatience)
	}
	return err
}

// relayed reports whether a relay carries frames of a fabric's port, and why not.
func (d *daemonView) relayed(port string) error {
	st, err := d.status()
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
	st, err := v.daemon.status()
	return st.Speakers, err
}
