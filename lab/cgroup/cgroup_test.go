package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
)

// The table is of a machine with version 1 hierarchies, one of them mounted
// twice, and the unified one.
func TestParse(t *testing.T) {
	got := parse(`31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:31 / /mnt/another\040place rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`)
	want := []Hierarchy{{Mount: "/sys/fs/cgroup/cpu,cpuacct"}, {Mount: "/sys/fs/cgroup/cpuset"}, {Mount: "/sys/fs/cgroup/unified", Unified: true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if OnlyUnified(want) || !OnlyUnified(want[2:]) {
		t.Error("a machine with a version 1 hierarchy has not only version 2")
	}
}

// A process can be put into a new group of every hierarchy, and the group goes
// as soon as the process ends, with groups that were made below.
func TestMakeAndRemove(t *testing.T) {
	testnet.Need(t, testnet.Root)
	hs, err := Hierarchies()
	if err != nil {
		testnet.Lacks(t, testnet.Cgroups, err)
	}
	top := fmt.Sprintf("slipway-test%d", os.Getpid())
	dirs, err := Make(hs, top+"/node")
	t.Cleanup(func() {
		if err := Remove(context.WithoutCancel(t.Context()), hs, top); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		testnet.Lacks(t, testnet.Cgroups, err) // as in a container that may not make any
	}
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		below := filepath.Join(d, "pods", "pod1")
		if err := os.MkdirAll(below, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := put(filepath.Join(d, "cgroup.procs"), fmt.Sprint(sleep.Process.Pid)); err != nil && !OnlyUnified(hs) {
			t.Errorf("enter %s: %v", d, err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Remove(short, hs, top); err == nil && !OnlyUnified(hs) {
		t.Error("a group with a process in it was removed")
	}
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	if err := Remove(t.Context(), hs, top); err != nil {
		t.Fatal(err)
	}
	if there, err := Exists(hs, top); there || err != nil {
		t.Errorf("still there: %v, %v", there, err)
	}
	if err := Remove(t.Context(), hs, top); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// What the unified hierarchy's top withholds, on a tree of plain files.
func TestWithheld(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n", "cgroup.subtree_control": "cpu memory pids\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hs := []Hierarchy{{Mount: dir, Unified: true}}
	if d := cmp.Diff([]string{"cpuset", "io"}, Withheld(hs)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := Withheld(append(hs, Hierarchy{Mount: "/nowhere"})); len(got) > 0 {
		t.Errorf("beside version 1: %v", got)
	}
	if err := Hand(hs, "cpuset", true); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); string(got) != "+cpuset" {
		t.Errorf("wrote %q", got)
	}
}
