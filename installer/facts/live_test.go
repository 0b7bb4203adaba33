package facts_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/facts"
	"slipway/internal/testnet"
)

func TestMain(m *testing.M) { rig.Main(m) }

// here is this machine, as a host whose shell is a given one.
type here struct{ shell []string }

func (here) Name() string                                { return "here" }
func (here) Store(context.Context, installer.Blob) error { return errors.New("nothing is stored here") }

func (h here) Run(ctx context.Context, c installer.Command) (installer.Result, error) {
	cmd := exec.CommandContext(ctx, h.shell[0], append(slices.Clone(h.shell[1:]), c.Argv[1:]...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return installer.Result{Code: cmd.ProcessState.ExitCode(), Stdout: out.Bytes(), Stderr: errs.Bytes()}, err
}

// Every shell says the same of this machine, and nothing on stderr.
func TestShells(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, shell := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			continue
		}
		tried++
		f, err := facts.Of(t.Context(), here{shell})
		if err != nil {
			t.Errorf("%v: %v", shell, err)
			continue
		}
		if f.Hostname != name || f.CPUs < 1 || f.Memory < 1<<20 || f.Kernel == "" || f.OS.ID == "" || len(f.Links) == 0 || len(f.Disks) < 5 || f.Root != (os.Geteuid() == 0) {
			t.Errorf("%v: %+v", shell, f)
		}
		if len(strings.Fields(f.Sysctls["net.ipv4.ip_local_port_range"])) != 2 || f.Commands["stat"] == "" || len(f.Cgroup.Controllers) == 0 || len(f.Routes) == 0 {
			t.Errorf("%v: %+v", shell, f)
		}
		// The clock is our own: whatever it took, the answer is true.
		if abs(f.Time.Skew) > f.Time.Within+time.Millisecond {
			t.Errorf("%v: our own clock is %s ahead of us ± %s", shell, f.Time.Skew, f.Time.Within)
		}
	}
	if tried == 0 {
		t.Skip("no shell that is known here")
	}
}

func abs(d time.Duration) time.Duration { return max(d, -d) }

// broken answers as it is told.
type broken struct {
	here
	out string
	err error
}

func (b broken) Run(context.Context, installer.Command) (installer.Result, error) {
	return installer.Result{Stdout: []byte(b.out)}, b.err
}

// All hosts that fail are named at once, and the facts of the others are there.
func TestGatherNamesAllThatFail(t *testing.T) {
	gone := errors.New("connection reset by peer")
	got, err := facts.Gather(t.Context(), map[string]installer.Host{"good": here{[]string{"sh"}}, "gone": broken{err: gone}, "odd": broken{out: "slipway-facts\t1\nhostname\todd\n"}})
	if len(got) != 1 || got["good"].Hostname == "" {
		t.Errorf("%v", got)
	}
	var of *facts.HostError
	if !errors.Is(err, gone) || !errors.Is(err, facts.ErrGarbled) || !errors.As(err, &of) || of.Host != "gone" {
		t.Errorf("%v", err)
	}
	if want := "learn about gone: connection reset by peer\nlearn about odd: it has no end"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

// Two machines with networks, programs and settings of their own.
func TestMachines(t *testing.T) {
	r := rig.New(t, "  nodes: [{name: node01, address: 192.168.233.31}, {name: node02, address: 192.168.233.32}]\n", nil)
	n := r.Nodes["node01"]
	script := `perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 10257, Listen => 1) or die; sleep 600' </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid
ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 && ip link set flannel.1 up && ip address add 10.244.1.0/32 dev flannel.1
iptables -P FORWARD DROP; iptables -N KUBE-SERVICES; iptables -A INPUT -p tcp --dport 2379 -j REJECT
case $(iptables --version) in *nf_tables*) iptables-legacy -N FLANNEL-FWD ;; *) iptables-nft -N FLANNEL-FWD ;; esac
mkdir -p /etc/cni/net.d /var/lib/slipway/undo && echo '{}' >/etc/cni/net.d/10-old.conflist
echo 1 >/proc/sys/net/ipv4/ip_forward; ln -sf /usr/share/zoneinfo/Europe/Vienna /etc/localtime`
	if out, code := n.Sh(script); code != 0 {
		t.Fatal(out)
	}
	hosts := map[string]installer.Host{"node01": n, "node02": r.Nodes["node02"]}
	var all map[string]facts.Facts
	testnet.Eventually(t, time.Minute, "the program listens", func() (bool, string) {
		var err error
		if all, err = facts.Gather(t.Context(), hosts); err != nil {
			t.Fatal(err)
		}
		return listens(all["node01"], 10257) != "", ""
	})
	f := all["node01"]
	if f.Hostname != "node01" || f.MachineID != "00000000000000000000000000000001" || !f.Shared || f.Time.Zone != "Europe/Vienna" || f.Sysctls["net.ipv4.ip_forward"] != "1" {
		t.Errorf("%+v", f)
	}
	if got := listens(f, 10257); got != "perl at 127.0.0.1" {
		t.Errorf("10257 is %s", got)
	}
	if !slices.Contains(f.Firewall.Drops, "ip filter FORWARD") || f.Firewall.Chains["KUBE-"] != 1 || len(f.Firewall.Denies) != 1 || !strings.Contains(f.Firewall.Denies[0], "2379") {
		t.Errorf("%+v", f.Firewall)
	}
	if v, _ := n.Sh("iptables --version"); f.Firewall.IPTables == "" || strings.Contains(v, "nf_tables") != (f.Firewall.IPTables == "nft") || f.Firewall.Chains["FLANNEL-"] != 1 {
		t.Errorf("rules of %s, and what is in the other backend: %+v", v, f.Firewall)
	}
	if !slices.Equal(f.Left, []string{"/etc/cni/net.d/10-old.conflist"}) {
		t.Errorf("left: %v", f.Left)
	}
	if _, own := f.Own["/var/lib/slipway/undo"]; !own {
		t.Errorf("own: %v", f.Own)
	}
	var wire, tunnel bool
	for _, l := range f.Links {
		wire = wire || l.Name == "eth0" && l.Up && l.MAC != "" && slices.Contains(l.Addresses, netip.MustParsePrefix("192.168.233.31/24"))
		tunnel = tunnel || l.Name == "flannel.1" && l.Kind == "vxlan"
	}
	if !wire || !tunnel {
		t.Errorf("%+v", f.Links)
	}
	if !slices.Contains(f.Routes, facts.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "eth0"}) {
		t.Errorf("%+v", f.Routes)
	}
	other := all["node02"]
	if listens(other, 10257) != "" || len(other.Left) > 0 || len(other.Own) > 0 || other.MachineID == f.MachineID || other.Firewall.Chains != nil {
		t.Errorf("of another machine: %+v", other)
	}
}

func listens(f facts.Facts, port int) string {
	for _, s := range f.Listening {
		if s.Port == port {
			return s.Program + " at " + s.Address.String()
		}
	}
	return ""
}
