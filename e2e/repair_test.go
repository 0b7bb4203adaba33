package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/lab"
	"slipway/lab/daemon"
	"slipway/topology"
)

// sabotage is something that goes wrong in a lab.
type sabotage struct {
	name   string
	do     func(t *testing.T, l *testLab)
	says   string // what status has to mention
	except []topology.ModeName
}

var sabotages = []sabotage{
	{name: "route deleted", says: "route", except: append(calicoModes, topology.FlannelUDP), do: func(t *testing.T, l *testLab) {
		far, _ := l.st.Snapshot.NodeByName("node02")
		ip(t, l.at("node01"), "route", "del", far.PodCIDR.String())
	}},
	{name: "pod's route deleted", says: "dev cali", except: flannelModes, do: func(t *testing.T, l *testLab) {
		ip(t, l.at("node01"), "route", "del", l.at("client").addr.String())
	}},
	{name: "FDB entry deleted", says: "fdb", except: append(calicoModes, topology.FlannelUDP), do: func(t *testing.T, l *testLab) {
		far, _ := l.st.Snapshot.NodeByName("node02")
		within(t, l.at("node01"), "bridge", "fdb", "del", far.VTEPMAC, "dev", "flannel.1", "dst", far.Address.String())
	}},
	{name: "masquerading flushed", says: "iptables -t nat -A", do: func(t *testing.T, l *testLab) {
		chain := "FLANNEL-POSTRTG"
		if l.st.Snapshot.Network.Mode.IsCalico() {
			chain = "cali-nat-outgoing"
		}
		within(t, l.at("node01"), iptables(), "-t", "nat", "-F", chain)
	}},
	{name: "service rules flushed", says: "-A KUBE-SERVICES", do: func(t *testing.T, l *testLab) {
		within(t, l.at("node02"), iptables(), "-t", "nat", "-F", "KUBE-SERVICES")
	}},
	{name: "forwarding off", says: "ip_forward", do: func(t *testing.T, l *testLab) {
		err := l.at("node01").ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644) })
		if err != nil {
			t.Fatal(err)
		}
	}},
	{name: "pod's veth deleted", says: "client", do: func(t *testing.T, l *testLab) {
		ip(t, l.at("node01"), "link", "del", hostEnd(t, l, l.at("client")))
	}},
	{name: "pod's namespace deleted", says: "default/web", do: func(t *testing.T, l *testLab) {
		deleteNS(t, lab.NSOfPod(l.name, "default/web"))
	}},
	{name: "node's namespace deleted", says: "node02", do: func(t *testing.T, l *testLab) {
		deleteNS(t, lab.NSOfMachine(l.name, "node02"))
	}},
	{name: "daemon killed", says: "daemon", do: func(t *testing.T, l *testLab) {
		s, err := lab.DaemonStatus(context.Background(), l.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the daemon's end", func() (bool, string) {
			_, err := lab.DaemonStatus(context.Background(), l.name)
			return err != nil, "it answers"
		})
	}},
}

// TestRepair damages labs in every way that one can think of. Each time status
// says so, up mends it, and traffic flows again.
func TestRepair(t *testing.T) {
	objects := podYAML("client", "node01", nil) + podYAML("web", "node02", []string{"app: web"}, "80/TCP") +
		serviceYAML("web", "selector: {app: web}, ports: [{port: 80}]")
	spec := "  nodes:\n    - {name: node01, roles: [control-plane, etcd, worker]}\n    - {name: node02, roles: [worker]}\n"
	for _, mode := range []topology.ModeName{topology.FlannelUDP, topology.FlannelVXLAN, topology.CalicoIPIP} {
		t.Run(string(mode), func(t *testing.T) {
			l := up(t, "fix-"+string(mode[len(mode)-3:]), networkSpec(mode, "")+spec, objects)
			for _, s := range sabotages {
				if !slices.Contains(s.except, mode) {
					t.Run(s.name, func(t *testing.T) { repair(t, l, s) })
				}
			}
			if !slices.Contains(flannelModes, mode) {
				t.Run("BGP speaker killed", func(t *testing.T) { mendsItself(t, l, "node02") })
			}
		})
	}
}

// mendsItself kills a BGP speaker: the daemon starts another, and status first
// says that one is missing and then that all is well, without any `up`.
func mendsItself(t *testing.T, l *testLab, node string) {
	defer l.in(t)()
	speaker := func() daemon.SpeakerState {
		s, err := lab.DaemonStatus(context.Background(), l.name)
		if err != nil {
			t.Fatal(err)
		}
		return s.Speakers[node]
	}
	before := speaker()
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another speaker", func() (bool, string) {
		s := speaker()
		return s.PID != 0 && s.PID != before.PID && len(s.Down) == 0, fmt.Sprintf("%+v", s)
	})
	eventually(t, "a healthy lab", func() (bool, string) {
		s := slipway(t, "status", "-L", l.name)
		return s.Code == 0 && strings.Contains(s.Out, node+"       was started again"), s.Out
	})
	pings(t, l.pods(), l.pods())
}

func repair(t *testing.T, l *testLab, x sabotage) {
	defer l.in(t)()
	x.do(t, l)
	s := slipway(t, "status", "-L", l.name)
	if s.Code != 1 || !strings.Contains(s.Out, x.says) {
		t.Errorf("%s: after %q: exit code %d, want 1 and something of %q\n%s%s", s.Argv, x.name, s.Code, x.says, s.Out, s.Err)
	}
	l.slipway("up")
	l.read()
	wantHealthy(t, l)
	pings(t, l.pods(), l.pods())
	for _, from := range []*place{l.at("client"), l.at("node01")} {
		answered(t, from, "service web after "+x.name, l.clusterIP("web"), []*place{l.at("web")})
	}
}

func deleteNS(t *testing.T, name string) {
	t.Helper()
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
}

// iptables is the variant that the nodes' rules are in: legacy where there is one.
func iptables() string {
	if _, err := exec.LookPath("iptables-legacy"); err == nil {
		return "iptables-legacy"
	}
	return "iptables"
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// within runs a program in a place.
func within(t testing.TB, p *place, name string, args ...string) string {
	t.Helper()
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "xtables"))
	out, err := run.Cmd{NS: p.ns, Name: name, Args: args, Env: env}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestApplyAndDelete brings objects into a running lab and takes them out.
func TestApplyAndDelete(t *testing.T) {
	w := world{replicas: 1}
	l := up(t, "apply", w.spec(), w.objects())
	file := filepath.Join(t.TempDir(), "more.yaml")
	more := podYAML("late", "node02", []string{"app: late"}, "80/TCP") + serviceYAML("late", "selector: {app: late}, ports: [{port: 80}]")
	if err := os.WriteFile(file, []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	before := podsByName(l)
	kept := keep(t, l.at("client"), l.clusterIP("keeper"))
	l.slipway("apply", "-f", file)
	l.read()
	for range 2 { // up leaves alone what was applied
		answered(t, l.at("client"), "applied service", l.clusterIP("late"), []*place{l.at("late")})
		wantHealthy(t, l)
		l.again(w.spec(), w.objects())
	}
	l.slipway("delete", "-f", file)
	l.read()
	if diff := cmp.Diff(before, podsByName(l), cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("pods before apply and after delete (-before +after):\n%s", diff)
	}
	if l.all["late"] != nil {
		t.Error("pod late is still there")
	}
	kept.check(t)
	wantHealthy(t, l)
}
