package machines

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// A node is a machine to those inside: its own name, processes, files and
// networks, and it reaches the others by their names.
func TestNodesAreMachines(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	res := w.up(cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN))
	if !res.Created || res.Pods != 0 || res.Services != 0 {
		t.Errorf("%+v", res)
	}
	ids := map[string]bool{}
	for _, node := range []string{"master01", "node01", "node02"} {
		if got := w.sh(name, node, "hostname; cat /etc/hostname"); got != node+"\n"+node {
			t.Errorf("%s calls itself %q", node, got)
		}
		ids[w.sh(name, node, "cat /etc/machine-id")] = true
		if got := w.sh(name, node, "ls -d /proc/[0-9]* | wc -l"); len(got) > 1 {
			t.Errorf("%s sees %s processes", node, got)
		}
	}
	if len(ids) != 3 {
		t.Errorf("machine ids: %v", ids)
	}
	w.sh(name, "node01", "ping -c1 -W2 node02 && ping -c1 -W2 master01")
	if again := w.up(cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN)); len(again.Changes) != 0 {
		t.Errorf("a second up changed %v", again.Changes)
	}
	if r := w.down(name); len(r.Holding) > 0 || len(r.Ended) < 4 {
		t.Errorf("%+v", r)
	}
	w.wantNothingLeft(name)
}

// A node's processes are in its own groups of every hierarchy, and so are those
// that it makes below, which `down` removes.
func TestControlGroups(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	w.up(cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN))
	group, _, err := lab.OpenMachine(name, "node01").CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if want := "/slipway-" + name + "/node01"; group != want {
		t.Errorf("group %s, want %s", group, want)
	}
	for line := range strings.Lines(w.sh(name, "node01", "cat /proc/self/cgroup")) {
		if !strings.Contains(line, group) {
			t.Errorf("a process of the node is in %s", line)
		}
	}
	w.sh(name, "node01", `for h in /sys/fs/cgroup /sys/fs/cgroup/*; do
  test -d $h`+group+` || continue
  mkdir -p $h`+group+`/kubepods/pod1
  for f in cpuset.cpus cpuset.mems; do test ! -e $h`+group+`/$f || test -n "$(cat $h`+group+`/$f)" || exit 1; done
done`)
	w.down(name)
	w.wantNothingLeft(name)
}

// A killed node stays off while the lab is changed, is started again by `up`, and
// has what it had.
func TestKilledNode(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	c := cluster(t, name, topology.ComponentsLight, topology.FlannelHostGW)
	w.up(c)
	w.sh(name, "node01", "echo kept >/etc/own; mkdir -p /var/lib/etcd; echo data >/var/lib/etcd/x")
	others := inits(t, name, "node02")
	kill(t, inits(t, name, "node01")...)
	if _, err := lab.Change(t.Context(), name, nil, func(*lab.State) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := lab.OpenMachine(name, "node01").Client().Ping(t.Context()); err == nil {
		t.Error("a change of the lab has started the node")
	}
	res := w.up(c)
	if len(res.Changes) != 1 || res.Changes[0].Node != "node01" {
		t.Errorf("up did %v", res.Changes)
	}
	if got := w.sh(name, "node01", "cat /etc/own /var/lib/etcd/x"); got != "kept\ndata" {
		t.Errorf("the node has lost its files: %q", got)
	}
	if now := inits(t, name, "node02"); !slices.Equal(now, others) {
		t.Errorf("node02 was started again: %v, then %v", others, now)
	}
	w.down(name)
	w.wantNothingLeft(name)
}

// kill ends processes at once, and waits until they have ended.
func kill(t *testing.T, pids ...int) {
	t.Helper()
	if len(pids) == 0 {
		t.Fatal("there is no process to kill")
	}
	for _, p := range pids {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	testnet.Eventually(t, patience, "end of the processes", func() (bool, string) {
		for _, p := range pids {
			if env, _ := os.ReadFile(filepath.Join("/proc", itoa(p), "environ")); len(env) > 0 {
				return false, itoa(p)
			}
		}
		return true, ""
	})
}

// The power fails: everything of the lab is killed at once. `up` brings it back.
func TestPowerCut(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	c := cluster(t, name, topology.ComponentsLight, topology.FlannelUDP)
	w.up(c)
	w.sh(name, "master01", "mkdir -p /var/lib/etcd; echo data >/var/lib/etcd/x")
	st, err := lab.ReadState(name)
	if err != nil {
		t.Fatal(err)
	}
	cut(t, st)
	w.up(c)
	if got := w.sh(name, "master01", "cat /var/lib/etcd/x"); got != "data" {
		t.Errorf("the node has lost its files: %q", got)
	}
	w.sh(name, "node01", "ping -c1 -W2 node02")
	cut(t, st)
	w.down(name)
	w.wantNothingLeft(name)
}

// The daemon's end is not the nodes': the next `up` starts it again beside them.
func TestKilledDaemon(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	c := cluster(t, name, topology.ComponentsLight, topology.CalicoBGP)
	w.up(c)
	before := inits(t, name, "node01")
	d, err := lab.DaemonStatus(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, d.PID)
	w.up(c)
	if now := inits(t, name, "node01"); !slices.Equal(now, before) {
		t.Errorf("the node was started again: %v, then %v", before, now)
	}
	w.down(name)
	w.wantNothingLeft(name)
}

// What `exec` runs is the node's, and ends with it; its exit code is its own.
func TestExec(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	w.up(cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN))
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.sh(name, "node01", "echo mine >/etc/mine")
	cmd := exec.Command(exe, execCommand, name, "node01", "sh", "-c", "hostname; cat /etc/mine; echo $SLIPWAY_LAB_MARK; grep -c slipway-"+name+"/node01 /proc/self/cgroup; systemctl is-active none; exit 7")
	out, err := cmd.Output()
	first, rest, _ := strings.Cut(string(out), "\nmine\n"+name+"/")
	if first != "node01" || !strings.HasSuffix(rest, "inactive\n") || strings.Contains(rest, "\n0\n") || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("said %q, %v", out, err)
	}
	sleep := exec.Command(exe, execCommand, name, "node01", "sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleep.Wait() }()
	eventually(t, "sleep in the node", func() (bool, string) {
		got := w.sh(name, "node01", "pgrep -x sleep || true")
		return got != "", got
	})
	w.down(name)
	if err := <-ended; err == nil {
		t.Error("the command of exec ended by itself")
	}
	w.wantNothingLeft(name)
	off := exec.Command(exe, execCommand, name, "node01", "true")
	if text, err := off.CombinedOutput(); err == nil || !strings.Contains(string(text), "does not run") {
		t.Errorf("in a node that is off: %s, %v", text, err)
	}
}
