package scenario

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"rsc.io/script"

	"slipway/lab"
)

// run is the running of one script on a lab.
type run struct {
	ctx     context.Context
	program string
	lab     string
	dir     string // where the scenario's files are
	env     []string
	log     io.Writer // what commands say on the way; nil: nobody reads it
	st      *lab.State

	lastOut, lastErr string
	outcome          outcome // of the last probe, trace or pattern
	ran              []Ran
	onRan            func(Ran)
}

// Ran is a command that was run, as a student types it, and what it printed.
type Ran struct {
	Command string `json:"command"`
	Stdout  string `json:"stdout"`
	Stderr  string `json:"stderr,omitempty"`
}

func (x *run) note(r Ran) {
	x.ran = append(x.ran, r)
	if x.onRan != nil {
		x.onRan(r)
	}
}

// FailedError is a line of a script that did not do what it should.
type FailedError struct {
	File string
	Line int
	Op   string
	Args []string
	Err  error
}

// Error says where and why.
func (e *FailedError) Error() string {
	return fmt.Sprintf("%s:%d:1: %s: %v", e.File, e.Line, strings.Join(append([]string{e.Op}, e.Args...), " "), e.Err)
}

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Err }

// script runs a script to its end, or to the first line that fails.
func (x *run) script(s Script) error {
	st, err := script.NewState(x.ctx, x.dir, x.env)
	if err != nil {
		return err
	}
	err = x.engine().Execute(st, s.File, bufio.NewReader(strings.NewReader(s.Text)), io.Discard)
	var c *script.CommandError
	if errors.As(err, &c) {
		return &FailedError{File: s.File, Line: s.Line + c.Line - 1, Op: c.Op, Args: c.Args, Err: c.Err}
	}
	return err
}

// endPatience is how long a command that is interrupted has to end.
const endPatience = 30 * time.Second

// environ is the environment of commands: theirs is the scenario's lab, and they
// lock iptables in it and not the machine's.
func (x *run) environ() []string {
	return append(append(os.Environ(), x.env...), "SLIPWAY_LAB="+x.lab, lab.StateDirEnv+"="+lab.StateDir(),
		"XTABLES_LOCKFILE="+filepath.Join(x.dir, "xtables.lock"))
}

// slipway runs this program on the lab.
func (x *run) slipway(args []string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(x.ctx, x.program, args...)
	cmd.Dir, cmd.Env = x.dir, x.environ()
	cmd.Stdout, cmd.Stderr = &out, &errs
	if x.log != nil {
		cmd.Stderr = io.MultiWriter(&errs, x.log)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endPatience
	err = cmd.Run()
	if err != nil {
		said := strings.TrimSpace(errs.String())
		err = fmt.Errorf("slipway %s: %w: %s", strings.Join(args, " "), err, said)
	}
	x.outcome = outcome{want: phrase(wantCommand, strings.Join(args, " ")), wantNot: phrase(wantCommandFails, strings.Join(args, " ")), got: same(strings.TrimSpace(out.String() + errs.String()))}
	return out.String(), errs.String(), err
}

// processes is what is read of `slipway status -o json`.
type processes struct {
	Daemon struct {
		PID      int
		Speakers map[string]struct{ PID int }
	}
}

// oneSignal keeps a process id from being another's when it gets its signal.
var oneSignal sync.Mutex

// signal sends a signal to the lab's daemon or a speaker of it.
func (x *run) signal(args []string) (string, string, error) {
	oneSignal.Lock()
	defer oneSignal.Unlock()
	out, _, err := x.slipway([]string{"status", "-o", "json"})
	var p processes
	if e := json.Unmarshal([]byte(out), &p); e != nil { // a status that finds faults ends with 1
		return "", "", errors.Join(err, e)
	}
	pid := p.Daemon.PID
	if node, ok := strings.CutPrefix(args[1], speakerPrefix); ok {
		pid = p.Daemon.Speakers[node].PID
	}
	if pid <= 1 {
		return "", "", fmt.Errorf("there is no %s", args[1])
	}
	return "", "", syscall.Kill(pid, signals[args[0]])
}
