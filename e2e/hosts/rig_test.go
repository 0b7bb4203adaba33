package hosts

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// victimEnv makes the test binary start a rig and wait to be killed.
const victimEnv = "SLIPWAY_TEST_VICTIM"

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// box prints what of this machine no test machine may change: the network that is
// its own, its rules, its kernel's settings and its control groups. Counters and
// groups of other tests are left out.
const box = `for c in "ip -o link" "ip -o addr" "ip route show table all" "ip rule" "iptables-save" "nft list ruleset"; do
	echo "# $c"
	$c 2>&1 | sed -e 's/ valid_lft .*//' -e '/^#/d' -e 's/\[[0-9]*:[0-9]*\]//'
done
find /proc/sys/kernel /proc/sys/vm /proc/sys/fs /proc/sys/net -type f -perm -u+w ! -path '*/random/*' ! -name ns_last_pid -print0 |
	sort -z | xargs -0 grep -H '' 2>/dev/null
find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d ! -name 'slipway*' | sort
find /sys/fs/cgroup -maxdepth 2 -type f -name 'cpu*' | sort | xargs grep -H '' 2>/dev/null | grep -v -e stat -e usage -e pressure
true`

func boxState(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("sh", "-c", box)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+t.TempDir()+"/lock")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(out), "\n")
}

// ssh is the operator's, with this machine's own program.
func (r *Rig) ssh(m *Machine, user, command string) Output {
	dir := r.Home + "/.ssh/"
	return r.run(r.Command("ssh", "-F", "/dev/null", "-i", dir+"id_ed25519", "-o", "UserKnownHostsFile="+dir+"known_hosts", "-o", "BatchMode=yes", user+"@"+m.Address.String(), command))
}

// The machines are what they are called: one logs in to them by SSH, each is
// another machine to itself and others, and this machine does not change by them.
func TestMachines(t *testing.T) {
	before := boxState(t)
	began := time.Now()
	r := Start(t, 3, 0)
	t.Logf("three machines in %v", time.Since(began))
	seen := map[string]string{}
	for _, m := range r.Machines {
		if state := m.Must("systemctl is-system-running; systemctl --failed --no-legend"); state != "running\n" {
			t.Errorf("%s: %s", m.Name(), state)
		}
		if o := r.ssh(m, User, "sudo -n id -u; hostname"); o.Stdout != "0\n"+m.Name()+"\n" || o.Code != 0 {
			t.Errorf("%s: %v", m.Name(), o)
		}
		if o := r.ssh(m, UserNobody, "sudo -n id -u"); o.Code == 0 {
			t.Errorf("%s: %s may become root: %v", m.Name(), UserNobody, o)
		}
		for _, what := range []string{"cat /etc/machine-id", "cat /sys/class/net/eth0/address", "cat /etc/ssh/ssh_host_ed25519_key.pub"} {
			id := m.Must(what)
			if seen[id] != "" {
				t.Errorf("%s: %s and %s have %s in common", what, seen[id], m.Name(), id)
			}
			seen[id] = m.Name()
		}
		for _, f := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/fs/file-max", "/proc/sys/vm/swappiness"} {
			if out, code := m.Sh("cat " + f + " >/tmp/v; cat /tmp/v >" + f); code == 0 {
				t.Errorf("%s can write %s: %s", m.Name(), f, out)
			}
		}
		// What is the network's is the machine's own, and so are control groups.
		m.Must("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 5 >/proc/sys/vm/overcommit_memory; echo 3 >/proc/sys/kernel/panic; iptables -N OWN")
		m.Must("for d in $(find /sys/fs/cgroup -mindepth 0 -maxdepth 1 -type d ! -name systemd); do [ ! -e $d/cgroup.procs ] || { mkdir $d/own && rmdir $d/own; } || exit 1; done")
	}
	r.Machines[0].Must("touch /kept && sync")
	r.Machines[0].Off()
	r.Machines[0].Boot()
	r.Machines[0].Must("test -e /kept")
	if d := cmp.Diff(before, boxState(t)); d != "" {
		t.Errorf("this machine has changed (-before +after):\n%s", d)
	}
}

// What a test leaves that is killed, the next one takes away.
func TestSweep(t *testing.T) {
	if os.Getenv(victimEnv) != "" {
		r := Start(t, 1, 0)
		if err := os.WriteFile(os.Getenv(victimEnv), []byte(r.dir), 0o600); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	testnet.Need(t, testnet.Root, testnet.Nspawn)
	note := t.TempDir() + "/note"
	victim := exec.Command(os.Args[0], "-test.run=^TestSweep$")
	victim.Env = append(os.Environ(), victimEnv+"="+note)
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	testnet.Eventually(t, longest, "the victim has a machine", func() (bool, string) {
		raw, err := os.ReadFile(note)
		dir = string(raw)
		return err == nil && dir != "", "no note"
	})
	_ = syscall.Kill(victim.Process.Pid, syscall.SIGKILL)
	_ = victim.Wait()
	sweep()
	tag := strings.TrimPrefix(dir, statePrefix)
	names, err := netns.Names(netPrefix(tag))
	if err != nil || len(names) > 0 {
		t.Errorf("namespaces are left: %v, %v", names, err)
	}
	out, _ := exec.Command("sh", "-c", "ls -d /sys/fs/cgroup/*/"+groupName(tag)+" "+dir+" 2>/dev/null; grep "+tag+" /proc/self/mounts; pgrep -af '[s]ystemd-nspawn.*"+dir+"'").Output()
	if len(out) > 0 {
		t.Errorf("left:\n%s", out)
	}
}
