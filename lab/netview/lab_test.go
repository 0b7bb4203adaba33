package netview_test

import (
	"context"
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

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/netview"
)

// statePrefix is followed by the test's process id; the path is short, as those
// of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-nv-"

// patience bounds any one command, on a busy machine too.
const patience = 3 * time.Minute

// binary is the program that brings labs up.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "slipway-nv")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	binary = filepath.Join(dir, "slipway")
	if err := testnet.Build(binary, "slipway/cmd/slipway"); err != nil {
		return complain(err)
	}
	sweep()
	state := statePrefix + strconv.Itoa(os.Getpid())
	if err := os.Setenv(lab.StateDirEnv, state); err != nil {
		return complain(err)
	}
	code := m.Run()
	downAll(state)
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		return complain(fmt.Errorf("%s is still there after the last lab went down", state))
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "netview:", err)
	return 1
}

// sweep takes down what a run of these tests left that was killed.
func sweep() {
	dirs, _ := filepath.Glob(statePrefix + "*")
	for _, d := range dirs {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(d, statePrefix)); err != nil {
			downAll(d)
		}
	}
}

func downAll(state string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "down", "--all")
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+state)
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "down --all in %s: %v\n%s", state, err, out)
	}
}

// slipway runs a command that has to succeed.
func slipway(t testing.TB, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput(); err != nil {
		t.Fatalf("slipway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// spec is a cluster of three nodes in two racks, with pods on two of them.
const spec = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: %s}
spec:
  network: {mode: %s}
  underlay:
    segments:
      - {name: rack1, subnet: 192.168.1.0/24%s}
      - {name: rack2, subnet: 192.168.2.0/24}
    routers:
      - {name: r1, segments: [rack1, rack2]}
  nodes:
    - {name: node01, roles: [control-plane, etcd, worker], segment: rack1}
    - {name: node02, roles: [worker], segment: rack1}
    - {name: node03, roles: [worker], segment: rack2}
  manifests: [objects.yaml]
`

const pod = `apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: web}}
spec:
  nodeName: %s
  containers:
    - {name: c, image: "echo:1", ports: [{containerPort: 80}]}
---
`

// up brings a lab up until its test ends. segment is added to the first rack's.
func up(t *testing.T, short, mode, segment string) *lab.State {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	name := fmt.Sprintf("nv%d-%s", os.Getpid(), short)
	dir := t.TempDir()
	var objects strings.Builder
	for _, p := range [][2]string{{"a", "node01"}, {"b", "node01"}, {"c", "node02"}, {"d", "node03"}} {
		fmt.Fprintf(&objects, pod, p[0], p[1])
	}
	for file, text := range map[string]string{"cluster.yaml": fmt.Sprintf(spec, name, mode, segment), "objects.yaml": objects.String()} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { slipway(t, "down", name) })
	slipway(t, "up", "-L", name, "-f", filepath.Join(dir, "cluster.yaml"))
	return state(t, name)
}

func state(t testing.TB, name string) *lab.State {
	t.Helper()
	st, err := lab.ReadState(name)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// view opens a view until its test ends.
func view(t testing.TB, st *lab.State) *netview.View {
	t.Helper()
	v, err := netview.Open(t.Context(), st, netview.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// stopDaemon stops a lab's daemon without ending it, and lets it go on when the
// function that it returns is called.
func stopDaemon(t *testing.T, name string) (goOn func()) {
	t.Helper()
	d, err := lab.DaemonStatus(t.Context(), name)
	if err == nil {
		err = syscall.Kill(d.PID, syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The signal is under way to each of its threads.
	testnet.Eventually(t, patience, "slipwayd stops", func() (bool, string) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.PID))
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if err == nil && !strings.Contains(string(stat), ") T ") { // proc_pid_stat(5): state
				return false, string(stat)
			}
		}
		return len(tasks) > 0, "no tasks"
	})
	return func() {
		if err := syscall.Kill(d.PID, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
}
