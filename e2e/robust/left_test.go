package robust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/netns"
	"slipway/lab/procs"
)

// wantNothingLeft looks everywhere a lab may have been. Names of foreign
// namespaces that merely look like the lab's are expected to be there.
func (w *world) wantNothingLeft(name string, foreign ...*stranger) {
	w.t.Helper()
	kept := map[string]bool{}
	for _, f := range foreign {
		kept[f.ns.Name()] = true
		f.check(w.t)
	}
	names, err := netns.Names("slipway-" + name + "-")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range names {
		if !kept[n] {
			w.t.Errorf("namespace %s is left", n)
		}
	}
	w.wantNoMount(name, kept)
	w.wantNoProcess(name)
	w.wantNoFile(name)
}

func (w *world) wantNoMount(name string, kept map[string]bool) {
	w.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		at := strings.Fields(line)[4] // proc_pid_mountinfo(5)
		if (strings.Contains(at, "slipway-"+name+"-") && !kept[filepath.Base(at)]) || strings.HasPrefix(at, w.state) {
			w.t.Errorf("mount %s is left", at)
		}
	}
}

// wantNoProcess looks for the lab's mark and for the program itself.
func (w *world) wantNoProcess(name string) {
	w.t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		mark := "\x00" + procs.MarkEnv + "=" + name + "/"
		if exe, _ := os.Readlink(filepath.Join(filepath.Dir(path), "exe")); strings.Contains("\x00"+string(env), mark) || exe == binary && strings.Contains(string(env), w.state+"\x00") {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			w.t.Errorf("process %s is left: %s", filepath.Base(filepath.Dir(path)), strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
}

// wantNoFile looks in the state directory, the BPF file system and the cgroups.
func (w *world) wantNoFile(name string) {
	w.t.Helper()
	for _, root := range []string{w.state, "/sys/fs/bpf", "/sys/fs/cgroup"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // nothing there, or gone meanwhile
			}
			if err != nil {
				return err
			}
			if root == w.state || strings.Contains(path, name) {
				w.t.Errorf("%s is left", path)
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// stranger is a namespace of somebody else whose name looks like a lab's, with
// a process in it.
type stranger struct {
	ns    *netns.NS
	inode uint64
	cmd   *exec.Cmd
}

// newStranger makes one that goes away with the test.
func newStranger(t testing.TB, name string) *stranger {
	t.Helper()
	if err := netns.EnsureDir(); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	s := &stranger{ns: ns, cmd: exec.Command("sleep", "600")}
	if s.inode, err = ns.Inode(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(s.cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	return s
}

// check wants the same namespace under the name, and the process alive.
func (s *stranger) check(t testing.TB) {
	t.Helper()
	ns, err := netns.Open(s.ns.Name())
	if err != nil {
		t.Errorf("foreign namespace: %v", err)
		return
	}
	defer ns.Close() //nolint:errcheck // read only
	if inode, err := ns.Inode(); err != nil || inode != s.inode {
		t.Errorf("foreign namespace %s is another one now (%v)", s.ns.Name(), err)
	}
	if !alive(s.cmd.Process.Pid) {
		t.Errorf("the process in foreign namespace %s was ended", s.ns.Name())
	}
}

// enter starts a process in a namespace without any mark, as `ip netns exec`
// does, and returns its process id.
func enter(t testing.TB, name string) int {
	t.Helper()
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close() //nolint:errcheck // the process holds it
	cmd := exec.Command("sleep", "600")
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// runs reports whether a process has become the command.
func runs(pid int, command string) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b)) == command
}
