package robust

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// points is how many moments of a command's run are tried.
func points(t testing.TB, n int) int {
	if testing.Short() {
		return max(3, n/5)
	}
	return n
}

// A killed `up` leaves whatever it leaves; `down` removes all of it and nothing
// else. The kills are spread over the command's measured run time and a little more.
func TestKilledUpGoesDown(t *testing.T) {
	for _, c := range []struct {
		mode   string
		points int
	}{{"flannel-vxlan", 25}, {"flannel-udp", 8}, {"calico-bgp", 8}, {"calico-ipip", 5}} {
		t.Run(c.mode, func(t *testing.T) {
			w := newWorld(t)
			name := labName()
			foreign := newStranger(t, "slipway-"+name+"-foreign")
			whole := w.up(name, c.mode).Took
			w.must("down", name)
			n, killed := points(t, c.points), 0
			for i := range n {
				at := whole * time.Duration(i) / time.Duration(n-1)
				s := w.cut(after(at), syscall.SIGKILL, w.upArgs(name, c.mode)...)
				if s.Code == -1 {
					killed++
				} else if i < n-1 { // the run that was measured was a slow one
					whole = min(whole, s.Took)
				}
				w.wantDown(name)
				w.wantNothingLeft(name, foreign)
				if t.Failed() {
					t.Fatalf("killed after %v of %v: %s", at, whole, s)
				}
			}
			if killed < n/4 {
				t.Errorf("only %d of %d runs were cut off", killed, n)
			}
		})
	}
}

// wantDown takes a lab down that something was killed of; when it had not begun
// or was gone altogether there is none, which is said as such.
func (w *world) wantDown(name string) {
	w.t.Helper()
	_, err := os.Stat(filepath.Join(w.state, name))
	s := w.run("down", name)
	if err == nil && s.Code != 0 {
		w.t.Errorf("%s\nwant exit code 0", s)
	}
	if err != nil && (s.Code != 2 || !strings.Contains(s.Err, "no such lab")) {
		w.t.Errorf("%s\nwant exit code 2 and `no such lab`", s)
	}
}

// The journal is written before each mutation, so its length says where `up` is.
func TestKilledUpAfterEachJournalEntry(t *testing.T) {
	w := newWorld(t)
	name := labName()
	journal := filepath.Join(w.state, name, "journal")
	foreign := newStranger(t, "slipway-"+name+"-foreign")
	w.up(name, "flannel-vxlan")
	entries := lines(journal)
	w.must("down", name)
	if entries < 10 { // fabric, external, 3 nodes, 6 pods, daemon
		t.Fatalf("the journal has %d entries", entries)
	}
	for n := 1; n <= entries; n++ {
		s := w.cut(func() bool { return lines(journal) >= n }, syscall.SIGKILL, w.upArgs(name, "flannel-vxlan")...)
		w.wantDown(name)
		w.wantNothingLeft(name, foreign)
		if t.Failed() {
			t.Fatalf("killed after journal entry %d of %d: %s", n, entries, s)
		}
	}
}

func lines(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return strings.Count(string(b), "\n")
}

// A killed `up` is repaired by another one.
func TestKilledUpIsRepaired(t *testing.T) {
	for mode, some := range map[string]int{"flannel-udp": 6, "flannel-vxlan": 6, "calico-ipip": 3} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			name := labName()
			whole := w.up(name, mode).Took
			w.must("down", name)
			n := points(t, some)
			for i := range n {
				at := whole * time.Duration(i+1) / time.Duration(n+1)
				w.cut(after(at), syscall.SIGKILL, w.upArgs(name, mode)...)
				w.up(name, mode)
				w.works(name)
				w.must("down", name)
				w.wantNothingLeft(name)
				if t.Failed() {
					t.Fatalf("killed after %v of %v", at, whole)
				}
			}
		})
	}
}

// A running lab whose change is killed is repaired or taken down just as well.
func TestKilledChange(t *testing.T) {
	w := newWorld(t)
	name := labName()
	w.up(name, "flannel-vxlan")
	whole := w.run("mode", "-L", name, "calico-ipip").Took
	w.must("mode", "-L", name, "flannel-vxlan")
	n := points(t, 6)
	for i := range n {
		at := whole * time.Duration(i+1) / time.Duration(n+1)
		w.cut(after(at), syscall.SIGKILL, "mode", "-L", name, "calico-ipip")
		w.up(name, "flannel-vxlan")
		w.works(name)
		if t.Failed() {
			t.Fatalf("killed after %v of %v", at, whole)
		}
	}
	w.cut(after(whole/2), syscall.SIGKILL, "mode", "-L", name, "calico-bgp")
	w.must("down", name)
	w.wantNothingLeft(name)
}

func TestKilledDown(t *testing.T) {
	for _, mode := range []string{"flannel-vxlan", "calico-bgp"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			name := labName()
			foreign := newStranger(t, "slipway-"+name+"-foreign")
			w.up(name, mode)
			whole := w.run("down", name).Took
			n := points(t, 14)
			if mode != "flannel-vxlan" {
				n = points(t, 6)
			}
			for i := range n {
				at := whole * time.Duration(i) / time.Duration(n-1)
				w.up(name, mode)
				s := w.cut(after(at), syscall.SIGKILL, "down", name)
				w.wantDown(name)
				w.wantNothingLeft(name, foreign)
				if t.Failed() {
					t.Fatalf("killed after %v of %v: %s", at, whole, s)
				}
			}
		})
	}
}

// A half-taken-down lab comes up again.
func TestKilledDownIsRepairedByUp(t *testing.T) {
	w := newWorld(t)
	name := labName()
	w.up(name, "flannel-vxlan")
	whole := w.run("down", name).Took
	n := points(t, 5)
	for i := range n {
		w.up(name, "flannel-vxlan")
		w.cut(after(whole*time.Duration(i+1)/time.Duration(n+1)), syscall.SIGKILL, "down", name)
		w.up(name, "flannel-vxlan")
		w.works(name)
	}
	w.must("down", name)
	w.wantNothingLeft(name)
}

// The daemon's death leaves kernel state; `status` says so, `up` repairs it,
// and `down` ends the speakers that outlive it.
func TestKilledDaemon(t *testing.T) {
	for _, mode := range []string{"flannel-udp", "calico-bgp"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			name := labName()
			w.up(name, mode)
			killDaemon(t, w, name)
			if s := w.run("status", "-L", name); s.Code != 1 || !strings.Contains(s.Out, "daemon") {
				t.Errorf("%s\nwant exit code 1 and a word about the daemon", s)
			}
			w.up(name, mode)
			w.works(name)
			killDaemon(t, w, name)
			w.must("down", name)
			w.wantNothingLeft(name)
		})
	}
}

func killDaemon(t *testing.T, w *world, name string) {
	t.Helper()
	pid := w.daemonPID(name)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, "end of the daemon", func() (bool, string) { return !alive(pid), fmt.Sprint("process ", pid, " lives") })
}

// What a user started in the lab with `exec` ends with it; what stands in one
// of its namespaces by other means is named and left alone.
func TestProcessesInside(t *testing.T) {
	w := newWorld(t)
	name := labName()
	w.up(name, "flannel-vxlan")
	inside := w.command(t.Context(), "exec", "-L", name, "client", "--", "sleep", "600")
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- inside.Wait() }()
	testnet.Eventually(t, patience, "exec becomes sleep", func() (bool, string) {
		return runs(inside.Process.Pid, "sleep"), "it has not"
	})
	guest := enter(t, "slipway-"+name+"-master01")
	s := w.run("down", name)
	if s.Code != 0 {
		t.Fatalf("%s\nwant exit code 0", s)
	}
	if err := <-ended; err == nil {
		t.Error("the command of exec ended by itself")
	}
	if !alive(guest) {
		t.Error("a process that is not the lab's was ended")
	}
	if want := fmt.Sprintf("process %d (sleep 600)", guest); !strings.Contains(s.Out, want) {
		t.Errorf("down does not name %s: %s", want, s.Out)
	}
	w.wantNothingLeft(name)
}
