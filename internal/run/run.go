// Package run starts other programs, in a network namespace if wanted, and
// turns their failure into an error that keeps everything they said.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"slipway/internal/netns"
)

// Cmd is one program to run to its end.
type Cmd struct {
	NS    *netns.NS // nil: the caller's namespace
	Name  string
	Args  []string
	Env   []string // added to none: nil inherits the caller's
	Stdin io.Reader
}

// Error is a program that ended badly. Error() shortens what it said; Stderr has all.
type Error struct {
	Argv   []string
	NS     string
	Stderr string
	Err    error
}

// Error names the command and the first line of what it said.
func (e *Error) Error() string {
	where := ""
	if e.NS != "" {
		where = " in " + e.NS
	}
	said := strings.TrimSpace(e.Stderr)
	if i := strings.IndexByte(said, '\n'); i >= 0 {
		said = said[:i] + " …"
	}
	if said != "" {
		said = ": " + said
	}
	return fmt.Sprintf("run %s%s: %v%s", strings.Join(e.Argv, " "), where, e.Err, said)
}

// Unwrap returns the cause, an *exec.ExitError or a failure to start.
func (e *Error) Unwrap() error { return e.Err }

// Output runs the command and returns its stdout. A failure is an *Error.
func (c Cmd) Output(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = c.Stdin, &stdout, &stderr, c.Env
	start := cmd.Start
	nsName := ""
	if c.NS != nil {
		nsName = c.NS.Name()
		start = func() error { return c.NS.Do(cmd.Start) } // the child keeps the thread's namespace
	}
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return stdout.Bytes(), &Error{Argv: append([]string{c.Name}, c.Args...), NS: nsName, Stderr: stderr.String(), Err: errors.Join(err, ctx.Err())}
	}
	return stdout.Bytes(), nil
}
