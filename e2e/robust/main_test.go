package robust

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
	"syscall"
	"testing"
	"time"

	"slipway/e2e/program"
	"slipway/internal/testnet"
	"slipway/lab"
)

// statePrefix is followed by the test's process id and a number. It is short,
// as paths of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-rb-"

// patience bounds any one command, on a busy machine too.
const patience = 3 * time.Minute

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(program.Main(m, statePrefix, &binary)) }

// world is a state directory of its own: the labs in it know of no others.
type world struct {
	t     testing.TB
	state string
}

var worlds int

// newWorld makes a state directory, and takes down whatever a failed test left
// in it.
func newWorld(t testing.TB) *world {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Curl)
	worlds++
	w := &world{t: t, state: fmt.Sprintf("%s%d-%d", statePrefix, os.Getpid(), worlds)}
	t.Cleanup(func() {
		if s := w.run("down", "--all"); s.Code != 0 {
			t.Errorf("last clean-up: %s", s)
		}
		if _, err := os.Stat(w.state); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there after the last lab went down", w.state)
		}
	})
	return w
}

var labs int

// labName makes a name that no other lab on the machine has.
func labName() string {
	labs++
	return fmt.Sprintf("rb%d-%d", os.Getpid(), labs)
}

// said is what a command printed and how it ended.
type said = program.Said

// command prepares a command of the program in this world.
func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+w.state)
	return cmd
}

// run runs a command to its end.
func (w *world) run(args ...string) said {
	w.t.Helper()
	return w.cut(nil, 0, args...)
}

// cut runs a command and sends it a signal when the condition holds; a nil
// condition never does. It returns when the command has ended.
func (w *world) cut(when func() bool, sig syscall.Signal, args ...string) said {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := w.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	start := time.Now()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err := signalWhen(cmd, ended, when, sig)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("slipway %s: %v", strings.Join(args, " "), err)
	}
	return said{
		Argv: "slipway " + strings.Join(args, " "), Out: out.String(), Err: errs.String(),
		Code: cmd.ProcessState.ExitCode(), Took: time.Since(start),
	}
}

func signalWhen(cmd *exec.Cmd, ended <-chan error, when func() bool, sig syscall.Signal) error {
	for when != nil {
		select {
		case err := <-ended:
			return err
		case <-time.After(100 * time.Microsecond):
		}
		if when() {
			_ = cmd.Process.Signal(sig) // it may have ended by itself
			break
		}
	}
	return <-ended
}

// must runs a command that has to succeed and returns its stdout.
func (w *world) must(args ...string) string {
	w.t.Helper()
	s := w.run(args...)
	if s.Code != 0 {
		w.t.Fatalf("%s\nwant exit code 0", s)
	}
	return s.Out
}

// after is a condition that holds from some time on.
func after(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().After(end) }
}

// decode reads a command's JSON.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in: %s", err, text)
	}
	if dec.More() {
		t.Fatalf("more than one JSON value in: %s", text)
	}
	return v
}

// up brings a lab up from a cluster file with the nginx and client examples.
func (w *world) up(name, mode string, args ...string) said {
	w.t.Helper()
	s := w.run(w.upArgs(name, mode, args...)...)
	if s.Code != 0 {
		w.t.Fatalf("%s\nwant exit code 0", s)
	}
	return s
}

func (w *world) upArgs(name, mode string, args ...string) []string {
	return append([]string{"up", "-L", name, "-f", "../../examples/demo.yaml", "--mode", mode}, args...)
}

// works asks a service of the lab from a pod of it, and has every node read back.
func (w *world) works(name string) {
	w.t.Helper()
	if said := w.must("exec", "-L", name, "client", "--", "curl", "-sS", "-m", "10", "http://nginx-svc:8080/"); !strings.Contains(said, "nginx-deployment-") {
		w.t.Fatalf("lab %s: the service answered %q", name, said)
	}
	if s := w.run("status", "-L", name); s.Code != 0 {
		w.t.Fatalf("%s\nwant exit code 0", s)
	}
}

// daemonPID asks a lab for the process id of its daemon.
func (w *world) daemonPID(name string) int {
	w.t.Helper()
	h := decode[struct{ Daemon struct{ PID int } }](w.t, w.must("status", "-L", name, "-o", "json"))
	if h.Daemon.PID <= 0 {
		w.t.Fatalf("lab %s has no daemon", name)
	}
	return h.Daemon.PID
}

func alive(pid int) bool {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // proc_pid_stat(5): field 3 is the state
	return !strings.HasPrefix(rest, "Z")
}
