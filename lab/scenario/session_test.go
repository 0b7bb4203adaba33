package scenario

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
)

// ownFile writes a scenario of the program under another name, so that it has a
// session of its own.
func ownFile(t *testing.T, scenario, name string) string {
	t.Helper()
	data, err := embedded.ReadFile("files/" + scenario + ending)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name+ending)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// slipway runs the program and returns what it said and its exit code.
func slipway(t *testing.T, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("slipway %v: %v", args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// labOf is the lab of a scenario.
func labOf(name string) string { return (&Session{Scenario: &Scenario{Name: name}}).Lab() }

// left lists what there is of a scenario on the machine.
func left(t *testing.T, name string) []string {
	t.Helper()
	names, err := netns.Names("slipway-" + labOf(name) + "-")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(sessionsDir(), name), filepath.Join(sessionsDir(), "."+name+".lock"), filepath.Join(lab.StateDir(), labOf(name))} {
		if _, err := os.Stat(path); err == nil {
			names = append(names, path)
		}
	}
	return names
}

// A run that is killed leaves nothing that `reset` does not clear, wherever it was,
// and another run can begin where it lies.
func TestKilled(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	t.Parallel()
	for _, c := range []struct {
		name  string
		until string // a path in the state directory
		group bool   // the command's own children are killed too
		again bool   // another run goes first
	}{
		{"killed-early", filepath.Join(dirName, "killed-early"), true, false},
		{"killed-up", labOf("killed-up"), false, false},
		{"killed-all", filepath.Join(labOf("killed-all"), "journal"), true, false},
		{"killed-again", filepath.Join(labOf("killed-again"), "journal"), true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := ownFile(t, "lost-route", c.name)
			cmd := exec.Command(program, "scenario", "run", path)
			var said bytes.Buffer
			cmd.Stderr = &said
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			testnet.Eventually(t, patience, "it has begun", func() (bool, string) {
				_, err := os.Stat(filepath.Join(lab.StateDir(), c.until))
				return err == nil, said.String()
			})
			pid := cmd.Process.Pid
			if c.group {
				pid = -pid
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed
			if c.again {
				if out, code := slipway(t, "scenario", "run", path); code != 0 {
					t.Errorf("run again: %d %s", code, out)
				}
			} else if out, code := slipway(t, "scenario", "check", c.name); code == 0 {
				t.Errorf("what was cut off is graded: %s", out)
			}
			if out, code := slipway(t, "scenario", "reset", c.name); code != 0 {
				t.Errorf("reset: %d %s", code, out)
			}
			if l := left(t, c.name); len(l) > 0 {
				t.Errorf("left: %v", l)
			}
		})
	}
}

// An interrupted run takes its lab down again by itself.
func TestInterrupted(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	t.Parallel()
	const name = "interrupted"
	cmd := exec.Command(program, "scenario", "run", ownFile(t, "lost-route", name))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, "it has begun", func() (bool, string) {
		_, err := os.Stat(filepath.Join(lab.StateDir(), labOf(name)))
		return err == nil, ""
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d: %s", code, said.String())
	}
	if l := left(t, name); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}

// A break that fails leaves no lab behind, and says the line.
func TestBreakThatFails(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	t.Parallel()
	path := ownFile(t, "lost-route", "bad-break")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "-- break --\n", "-- break --\nnode node01 false\n", 1)
	at := 1 + strings.Count(text[:strings.Index(text, "node node01 false")], "\n")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	x, err := New(s, Options{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	var f *FailedError
	if err := x.Start(t.Context()); !errors.As(err, &f) || f.Line != at {
		t.Errorf("got %v, want line %d", err, at)
	}
	if _, err := x.State(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("it runs: %v", err)
	}
	if err := x.Reset(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("reset of nothing: %v", err)
	}
	if l := left(t, "bad-break"); len(l) > 0 {
		t.Errorf("left: %v", l)
	}
}
