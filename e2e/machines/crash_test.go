package machines

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// An `up` that is killed after any of its announcements goes down without a trace,
// or is finished by the next one.
func TestKilledUp(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	c := cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN)
	journal := filepath.Join(w.state, name, "journal")
	w.up(c)
	entries := lines(journal)
	w.down(name)
	if entries < 9 { // fabric, external, three nodes; their groups and machines; the daemon
		t.Fatalf("the journal has %d entries", entries)
	}
	for n := 1; n <= entries; n++ {
		cmd := w.killable(clusterText(name, topology.ComponentsLight, topology.FlannelVXLAN))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		testnet.Eventually(t, patience, "entry in the journal", func() (bool, string) {
			select {
			case <-ended:
				return true, ""
			default:
				return lines(journal) >= n, ""
			}
		})
		_ = cmd.Process.Kill()
		<-ended
		if n%4 == 0 {
			w.up(c)
			w.sh(name, "node02", "ping -c1 -W2 node01")
		}
		if _, err := lab.Down(t.Context(), name); err != nil && !errors.Is(err, lab.ErrNoLab) {
			t.Errorf("killed after entry %d: down: %v", n, err)
		}
		w.wantNothingLeft(name)
		if t.Failed() {
			t.Fatalf("killed after entry %d of %d", n, entries)
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

// A `down` that is interrupted is finished by the next one.
func TestInterruptedDown(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond, 120 * time.Millisecond} {
		w.up(cluster(t, name, topology.ComponentsLight, topology.FlannelHostGW))
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, _ = lab.Down(ctx, name)
		cancel()
		if _, err := lab.Down(t.Context(), name); err != nil && !errors.Is(err, lab.ErrNoLab) {
			t.Errorf("after %s: %v", after, err)
		}
		w.wantNothingLeft(name)
	}
}

// Two labs with nodes of the same names and addresses stand beside each other;
// one going down leaves the other's machines alone.
func TestTwoLabs(t *testing.T) {
	w := newWorld(t)
	names := []string{w.name() + "a", w.name() + "b"}
	var g sync.WaitGroup
	for _, n := range names {
		c := cluster(t, n, topology.ComponentsLight, topology.FlannelVXLAN)
		g.Go(func() {
			if _, err := lab.Up(t.Context(), lab.UpOptions{Cluster: c, Objects: &topology.Objects{}}); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if t.Failed() {
		return
	}
	for _, n := range names {
		w.sh(n, "node01", "echo "+n+" >/etc/whose")
	}
	if got := w.sh(names[1], "node01", "cat /etc/whose; cat /etc/machine-id"); !strings.HasPrefix(got, names[1]) || strings.HasSuffix(got, w.sh(names[0], "node01", "cat /etc/machine-id")) {
		t.Errorf("%q", got)
	}
	before := inits(t, names[1], "node01")
	w.down(names[0])
	w.wantNothingLeft(names[0])
	if now := inits(t, names[1], "node01"); len(now) != 1 || now[0] != before[0] {
		t.Errorf("the other lab's node: %v, then %v", before, now)
	}
	w.sh(names[1], "node01", "ping -c1 -W2 node02")
	w.down(names[1])
	w.wantNothingLeft(names[1])
}

// A node that the file has no more ends, with what it had; the others go on.
func TestNodeLeaves(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	c := cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN)
	w.up(c)
	stays := inits(t, name, "node01")
	c.Spec.Nodes = c.Spec.Nodes[:2]
	w.up(c)
	if left := inits(t, name, "node02"); len(left) > 0 {
		t.Errorf("processes of the node that left: %v", left)
	}
	for _, path := range []string{filepath.Join(lab.Dir(name), "nodes", "node02"), "/sys/fs/cgroup/pids/slipway-" + name + "/node02"} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	if now := inits(t, name, "node01"); len(now) != 1 || now[0] != stays[0] {
		t.Errorf("node01: %v, then %v", stays, now)
	}
	w.down(name)
	w.wantNothingLeft(name)
}

// What cannot be is refused in words, and nothing is left of it.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	long := w.name() + strings.Repeat("x", 40)
	for want, edit := range map[string]func(*topology.Cluster){
		"107 is the limit": func(c *topology.Cluster) { c.Spec.Nodes[2].Name = "node-" + strings.Repeat("y", 50) },
		"choose another":   func(*topology.Cluster) { t.Setenv(lab.StateDirEnv, "/var/tmp/slipway-mc") },
	} {
		c := cluster(t, long, topology.ComponentsLight, topology.FlannelVXLAN)
		edit(c)
		_, err := lab.Up(t.Context(), lab.UpOptions{Cluster: c, Objects: &topology.Objects{}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("said %v, want words about %q", err, want)
		}
		t.Setenv(lab.StateDirEnv, w.state)
		w.wantNothingLeft(long)
	}
}
