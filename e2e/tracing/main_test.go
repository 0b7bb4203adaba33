package tracing

import (
	"bytes"
	"context"
	"encoding/json"
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

// statePrefix is followed by the test's process id. The path is short, as those
// of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-tr-"

// patience bounds any one command, on a busy machine too.
const patience = 3 * time.Minute

// program is the program under test.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "slipway-tr")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	program = filepath.Join(dir, "slipway")
	build := exec.Command("go", "build", "-o", program, "../../cmd/slipway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("build slipway: %w\n%s", err, out))
	}
	sweep()
	state := statePrefix + strconv.Itoa(os.Getpid())
	if err := os.Setenv(lab.StateDirEnv, state); err != nil {
		return complain(err)
	}
	code := m.Run()
	if err := downAll(state); err != nil {
		return complain(err)
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "tracing:", err)
	return 1
}

// sweep takes down what a run of these tests left that was killed.
func sweep() {
	dirs, _ := filepath.Glob(statePrefix + "*")
	for _, d := range dirs {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(d, statePrefix)); err == nil {
			continue
		}
		_ = downAll(d)
		_ = os.RemoveAll(d)
	}
}

func downAll(state string) error {
	cmd := exec.Command(program, "down", "--all")
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
	took           time.Duration
}

func (s said) String() string {
	return fmt.Sprintf("%s: exit code %d\nstdout: %s\nstderr: %s", s.argv, s.code, s.out, s.err)
}

// slipway runs a command of the program to its end.
func slipway(t testing.TB, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	s := said{
		argv: "slipway " + strings.Join(args, " "), out: out.String(), err: errs.String(),
		code: cmd.ProcessState.ExitCode(), took: time.Since(began),
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", s.argv, err)
	}
	return s
}

// decode reads a command's JSON.
func decode[T any](t testing.TB, s said) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s.out), &v); err != nil {
		t.Fatalf("%v in the output of %s", err, s)
	}
	return v
}
