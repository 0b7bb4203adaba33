package components

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"slipway/e2e/program"
	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/kubeapi"
)

// patience bounds what a busy machine may take for one thing.
const patience = 3 * time.Minute

var worlds int

// world is a state directory of its own for one lab.
type world struct {
	t    testing.TB
	name string // the lab's
	dir  string // scratch
	file string // the cluster file, once there is a lab
	api  *kubernetes.Clientset
}

// newWorld prepares for a lab, which is taken down when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Curl, testnet.Conntrack)
	worlds++
	state := fmt.Sprintf("%s%d-%d", statePrefix, os.Getpid(), worlds)
	t.Setenv(lab.StateDirEnv, state)
	w := &world{t: t, name: fmt.Sprintf("co%d-%d", os.Getpid(), worlds), dir: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			w.logs()
		}
		if out, code := w.slipway("down", "--all"); code != 0 {
			t.Errorf("down: %d\n%s", code, out)
		}
		if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there after the last lab went down", state)
		}
	})
	return w
}

// built skips a test unless components are there.
func built(t *testing.T, needs ...string) {
	t.Helper()
	for _, c := range needs {
		if _, err := components.Lookup(t.Context(), c); err != nil {
			testnet.Lacks(t, testnet.Kubernetes, err)
		}
	}
}

// newLab brings a lab up from a cluster file, in which NAME stands for its name.
// The components must have been built, which takes minutes.
func newLab(t *testing.T, file string, needs ...string) *world {
	t.Helper()
	built(t, needs...)
	program.Room(t, named(file, "lab"))
	w := newWorld(t)
	w.file = filepath.Join(w.dir, "cluster.yaml")
	if err := os.WriteFile(w.file, named(file, w.name), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if out, code := w.slipway("up", "-f", w.file); code != 0 {
		t.Fatalf("slipway up: %d\n%s", code, out)
	}
	t.Logf("up in %v", time.Since(begin))
	var err error
	if w.api, err = kubeapi.Client(w.name); err != nil {
		t.Fatal(err)
	}
	return w
}

// named is a cluster file with its name filled in.
func named(file, name string) []byte { return []byte(strings.ReplaceAll(file, "NAME", name)) }

// logs shows what a failed test's processes said last.
func (w *world) logs() {
	logs, _ := filepath.Glob(filepath.Join(lab.Dir(w.name), "*.log"))
	for _, f := range logs {
		raw, _ := os.ReadFile(f)
		w.t.Logf("%s:\n%s", filepath.Base(f), raw[max(0, len(raw)-4000):])
	}
}

// slipway runs a command of the program to its end.
func (w *world) slipway(args ...string) (out string, code int) {
	w.t.Helper()
	limit := patience
	if args[0] == "up" { // many things
		limit *= 3
	}
	said := program.Run(w.t, limit, exec.Command(binary, args...))
	return said.Both, said.Code
}

// must runs a command that has to succeed.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, code := w.slipway(args...)
	if code != 0 {
		w.t.Fatalf("slipway %s: %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// kubectl runs the lab's kubectl.
func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	return w.must(append([]string{"kubectl", "--lab", w.name}, args...)...)
}

// state is the lab's.
func (w *world) state() *lab.State {
	w.t.Helper()
	st, err := lab.ReadState(w.name)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}
