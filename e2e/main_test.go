package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"slipway/lab"
)

// stateDirPrefix is followed by the test's process id. The path is short, as
// those of UNIX sockets below it must fit 107 bytes (unix(7)).
const stateDirPrefix = "/run/slipway-e2e-"

// commandPatience is how long any one command may take, on a busy machine too.
const commandPatience = 3 * time.Minute

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "slipway-e2e")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	binary = filepath.Join(dir, "slipway")
	build := exec.Command("go", "build", "-o", binary, "../cmd/slipway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("build slipway: %w\n%s", err, out))
	}
	if err := sweep(); err != nil {
		return complain(err)
	}
	state := stateDirPrefix + strconv.Itoa(os.Getpid())
	if err := os.Setenv(lab.StateDirEnv, state); err != nil {
		return complain(err)
	}
	code := m.Run()
	if err := downAll(state); err != nil {
		return complain(err)
	}
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		return complain(fmt.Errorf("%s is still there after the last lab went down", state))
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// sweep takes down what a run of these tests left that was killed.
func sweep() error {
	dirs, err := filepath.Glob(stateDirPrefix + "*")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(d, stateDirPrefix)); err == nil {
			continue
		}
		if err := downAll(d); err != nil {
			return err
		}
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

func downAll(state string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "down", "--all")
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+state)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("down --all in %s: %w\n%s", state, err, out)
	}
	return nil
}

// said is what a command printed and how it ended.
type said struct {
	argv, out, err string
	code           int
}

// slipway runs a command of the program to its end.
func slipway(t testing.TB, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	s := said{argv: "slipway " + strings.Join(args, " "), out: out.String(), err: errs.String(), code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", s.argv, err)
	}
	return s
}

// must runs a command that has to succeed and returns what it printed.
func must(t testing.TB, args ...string) string {
	t.Helper()
	s := slipway(t, args...)
	if s.code != 0 {
		t.Fatalf("%s: exit code %d, want 0\nstdout: %s\nstderr: %s", s.argv, s.code, s.out, s.err)
	}
	return s.out
}
