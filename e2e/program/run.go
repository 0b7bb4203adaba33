package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// Said is what a command printed and how it ended.
type Said struct {
	Argv      string // as one types it
	Out, Err  string
	Both      string // in the order in which it was printed
	Code      int    // -1: killed by a signal
	Took      time.Duration
	truncated bool // its time was over
}

func (s Said) String() string {
	late := ""
	if s.truncated {
		late = " (killed: it took too long)"
	}
	return fmt.Sprintf("%s: exit code %d after %s%s\nstdout: %s\nstderr: %s", s.Argv, s.Code, s.Took.Round(time.Millisecond), late, s.Out, s.Err)
}

// Run runs a command to its end and kills it if that takes longer than limit. The
// test ends only where the command cannot be run: how it ended is for the caller to
// judge.
func Run(t testing.TB, limit time.Duration, cmd *exec.Cmd) Said {
	t.Helper()
	return RunIn(t, limit, cmd, func(start func() error) error { return start() })
}

// RunIn is Run where within, such as a namespace's Do, calls what starts the command.
func RunIn(t testing.TB, limit time.Duration, cmd *exec.Cmd, within func(start func() error) error) Said {
	t.Helper()
	var out, errs bytes.Buffer
	both := &testnet.Buffer{}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, both), io.MultiWriter(&errs, both)
	s := Said{Argv: strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " ")}
	began := time.Now()
	if err := within(cmd.Start); err != nil {
		t.Fatalf("%s: %v", s.Argv, err)
	}
	late := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	s.truncated = !late.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", s.Argv, err)
	}
	s.Out, s.Err, s.Both, s.Code, s.Took = out.String(), errs.String(), both.String(), cmd.ProcessState.ExitCode(), time.Since(began)
	return s
}
