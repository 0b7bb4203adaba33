package machines

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/lab/initd"
	"slipway/topology"
)

// moving are values below /proc/sys that change by themselves, or with every
// process.
var moving = []string{
	"fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/aio-nr", "fs/quota/", "kernel/random/", "kernel/ns_last_pid", "kernel/pty/nr",
	"net/netfilter/nf_conntrack_count", "kernel/sched_", "kernel/perf_event_max_sample_rate", "kernel/perf_cpu_time_max_percent",
}

// still takes out of what tools print what moves by itself: timers and counters.
var still = regexp.MustCompile(`((?:valid_lft|preferred_lft|expires|[a-z_]+_timer|packets|bytes) +)[\d.]+(?:sec)?`)

// machine is what a lab must not change: settings, networks, mounts, files of the
// system, modules, swap, the host's name and its control groups.
func machine(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	walk := func(root string, one func(path string, e fs.DirEntry)) {
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err == nil {
				one(path, e)
			}
			return nil
		})
	}
	walk("/proc/sys", func(path string, e fs.DirEntry) {
		for _, m := range moving {
			if strings.HasPrefix(strings.TrimPrefix(path, "/proc/sys/"), m) {
				return
			}
		}
		if b, err := os.ReadFile(path); err == nil && !e.IsDir() {
			out[path] = string(b)
		}
	})
	for _, root := range []string{"/etc", "/opt", "/usr/local", "/var/lib", "/srv"} {
		walk(root, func(path string, e fs.DirEntry) {
			if i, err := e.Info(); err == nil && !e.IsDir() {
				out[path] = fmt.Sprint(i.Size(), i.Mode(), i.ModTime())
			} else if err == nil {
				out[path] = fmt.Sprint(i.Mode())
			}
		})
	}
	for _, path := range []string{"/proc/modules", "/proc/swaps"} {
		b, err := os.ReadFile(path)
		out[path] = string(b) + fmt.Sprint(err)
		if path == "/proc/modules" {
			out[path] = names(string(b))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		// Names of network namespaces are the lab's business; tests have others.
		if at := strings.Fields(line)[4]; !strings.HasPrefix(at, "/run/netns") {
			out["mount "+at] += line
		}
	}
	// Groups of labs and of tests are looked for by their names elsewhere.
	walk("/sys/fs/cgroup", func(path string, e fs.DirEntry) {
		if e.IsDir() && !strings.Contains(path, "/slipway") {
			out[path] = ""
		}
	})
	for _, h := range []string{"/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/unified/cgroup.subtree_control"} {
		b, _ := os.ReadFile(h)
		out[h] = string(b)
	}
	for _, c := range []string{"ip -d link", "ip addr", "ip route show table all", "ip rule", "tc qdisc", "nft list ruleset"} {
		argv := strings.Fields(c)
		text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		out[c] = still.ReplaceAllString(string(text), "$1") + fmt.Sprint(err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	out["host name"] = unix.ByteSliceToString(u.Nodename[:])
	return out
}

// names are the first words of lines.
func names(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		first, _, _ := strings.Cut(line, " ")
		out.WriteString(first + "\n")
	}
	return out.String()
}

// The machine is the same before a lab with machines for nodes, while everything
// in them does what an installation does, and after it went down.
func TestMachineIsUntouched(t *testing.T) {
	w := newWorld(t)
	name := w.name()
	machine(t) // what reading alone brings about, it brings about now
	before := machine(t)
	w.up(cluster(t, name, topology.ComponentsLight, topology.FlannelVXLAN))
	same := func(when string) {
		t.Helper()
		if d := cmp.Diff(before, machine(t)); d != "" {
			t.Errorf("%s: the machine differs (-before +now)\n%s", when, d)
		}
	}
	same("up")
	for _, node := range []string{"master01", "node01"} {
		w.sh(name, node, `hostname other; echo other >/etc/hostname; echo 10.0.0.1 x >>/etc/hosts; mkdir -p /var/lib/kubelet/x /opt/cni/bin; touch /usr/local/bin/x /root/x
for s in `+strings.Join(initd.MachineWide(), " ")+`; do case $s in /proc/sys/*) test ! -e $s || echo 7 >$s;; esac; done
echo 1 >/proc/sys/net/ipv4/ip_forward; swapoff -a; mount -t tmpfs none /mnt; mount --bind /etc /srv`)
	}
	same("used")
	w.down(name)
	same("down")
	w.wantNothingLeft(name)
}
