package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"slipway/lab"
	"slipway/topology"
)

// endPatience is how long an interrupted command of the program may take to
// undo what it has made before it is killed.
const endPatience = 2 * time.Minute

// program runs the real slipway, so that the start of its process counts.
type program struct{ exe string }

// ran is what one run of the program cost.
type ran struct {
	wall time.Duration
	// cpu is user and system time of the process and of those that it waited
	// for, iptables-restore among them; the daemon, which goes on, is not in it.
	cpu time.Duration
}

// upRun is one `slipway up`.
type upRun struct {
	ran
	result lab.Result
}

// phase is how long a phase of the run took; zero if there was none.
func (u upRun) phase(name string) time.Duration {
	for _, t := range u.result.Timings {
		if t.Phase == name {
			return t.Took
		}
	}
	return 0
}

// up brings a lab up from a file, in a mode.
func (p program) up(ctx context.Context, file, name string, mode topology.ModeName) (upRun, error) {
	var u upRun
	var err error
	u.ran, err = p.run(ctx, &u.result, "up", "-f", file, "-L", name, "--mode", string(mode), "-o", "json")
	return u, err
}

// down takes a lab down.
func (p program) down(ctx context.Context, name string) (ran, error) {
	var results []lab.DownResult
	return p.run(ctx, &results, "down", name, "-o", "json")
}

// run runs one command line to its end and decodes what it prints.
func (p program) run(ctx context.Context, into any, args ...string) (ran, error) {
	cmd := exec.CommandContext(ctx, p.exe, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endPatience
	// What is typed at the terminal reaches this process, which passes it on once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := time.Now()
	err := cmd.Run()
	r := ran{wall: time.Since(start)}
	line := "slipway " + strings.Join(args, " ")
	if ctx.Err() != nil {
		return r, fmt.Errorf("%s: %w", line, ctx.Err())
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", line, err, bytes.TrimSpace(errs.Bytes()))
	}
	r.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		return r, fmt.Errorf("%s: read what it printed: %w", line, err)
	}
	return r, nil
}

// takeDown removes a lab after a failure or an interruption, too, when the
// bench's own context has ended; without a lab it does nothing.
func takeDown(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
	defer cancel()
	if _, err := lab.Down(ctx, name); err != nil && !errors.Is(err, lab.ErrNoLab) {
		return fmt.Errorf("take lab %s down (run `slipway down %s`): %w", name, name, err)
	}
	return nil
}

// downPatience bounds the removal of a lab of 10,000 pods on a busy machine.
const downPatience = 5 * time.Minute

// refuseTaken fails if a lab of the name is already up: it would not be ours to
// take down.
func refuseTaken(name string) error {
	switch _, err := lab.ReadState(name); {
	case errors.Is(err, lab.ErrNoLab):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("a lab %s is already up: `slipway down %s` takes it down", name, name)
	}
}
