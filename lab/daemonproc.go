package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"slipway/datapath"
	"slipway/lab/daemon"
	"slipway/lab/journal"
	"slipway/lab/procs"
)

// DaemonCommand and SpeakerCommand are the hidden commands under which this
// program runs as a lab's daemon and as a node's BGP speaker.
const (
	DaemonCommand  = "slipwayd"
	SpeakerCommand = "bgp-speaker"
)

// startPatience is how long a new daemon may take to answer, on a machine that
// emulates each of its instructions too. One that ends is noticed at once.
// It is asked every startLook, which leaves it a single CPU.
const (
	startPatience = time.Minute
	startLook     = 10 * time.Millisecond
)

// applyDaemon starts the daemon if none answers and hands it the desired state.
func (b *box) applyDaemon(ctx context.Context, exe string, d daemon.Desired) (datapath.Diff, error) {
	c := daemon.NewClient(filesOf(b.lab).socket())
	var diff datapath.Diff
	if _, err := c.Status(ctx); err != nil {
		if !errors.Is(err, daemon.ErrNotRunning) {
			return nil, err
		}
		if err := b.startDaemon(ctx, exe, c); err != nil {
			return nil, err
		}
		diff = datapath.Diff{{Node: "slipwayd", Action: datapath.Add, Object: "daemon", Command: "slipway " + DaemonCommand + " --lab " + b.lab}}
	}
	did, err := c.Set(ctx, d)
	return append(diff, did...), err
}

// startDaemon starts the daemon in a session of its own, so that a Ctrl-C at
// the terminal does not reach it, and waits until it answers.
func (b *box) startDaemon(ctx context.Context, exe string, c *daemon.Client) error {
	if err := b.endStray(ctx); err != nil {
		return err
	}
	if err := b.journal.Before(journal.Daemon, DaemonCommand); err != nil {
		return err
	}
	log, err := os.OpenFile(filesOf(b.lab).log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the daemon's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the daemon has its own descriptor
	cmd := exec.Command(exe, DaemonCommand, "--lab", b.lab)
	cmd.Env = append(os.Environ(), procs.MarkEnv+"="+b.procMark(), b.partMark(DaemonCommand), StateDirEnv+"="+StateDir())
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	err = waitFor(ctx, startLook, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended at once: %w; its log says: %s", err, lastLines(filesOf(b.lab).log()))
		default:
		}
		_, err := c.Status(ctx)
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	return nil
}

// endStray ends what a daemon that does not answer has left: itself, if it
// hangs, and speakers that have not yet noticed that it is gone. Other processes
// of the lab, as those of nodes with real components, need no daemon.
func (b *box) endStray(ctx context.Context) error {
	if !b.journal.Has(journal.Daemon, DaemonCommand) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	_, err := procs.EndWith(ctx, b.partMark(DaemonCommand))
	return err
}

// partMark is what the environment of one part of the lab's processes has, beside
// the lab's mark.
func (b *box) partMark(part string) string { return procs.PartEnv + "=" + b.procMark() + "/" + part }

// procMark is what the environment of the lab's own processes carries.
func (b *box) procMark() string { return procMark(b.lab, b.id) }

func procMark(lab, id string) string { return lab + "/" + id }

func lastLines(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "(none)"
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " / ")
}

// waitConverged waits for BGP where the mode has it.
func (b *box) waitConverged(ctx context.Context, p *plan, patience time.Duration) error {
	if p.agents() {
		return nil // the nodes' speakers are the agents', which come later
	}
	speakers := false
	for _, c := range p.all() {
		speakers = speakers || c.BGP != nil
	}
	if !speakers {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := daemon.NewClient(filesOf(b.lab).socket()).Wait(ctx); err != nil {
		return fmt.Errorf("BGP did not converge within %s (see `slipway status`): %w", patience, err)
	}
	return nil
}
