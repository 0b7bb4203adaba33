package facts

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var byText = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty(),
}

// A machine of the RHEL family with a login's noise around, a firewall, SELinux,
// swap, a disk of its own for etcd and what a cluster of before left.
func TestParseRocky(t *testing.T) {
	got, err := Parse([]byte(recorded(t, "rocky9.txt")))
	if err != nil {
		t.Fatal(err)
	}
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	want := Facts{
		OS:     OS{ID: "rocky", Version: "9.4", Like: []string{"rhel", "centos", "fedora"}, Name: "Rocky Linux 9.4 (Blue Onyx)"},
		Kernel: "5.14.0-427.13.1.el9_4.x86_64", Arch: "x86_64", Init: "systemd", Root: true, CPUs: 4, Memory: 3731088 * 1024, Available: 3100000 * 1024,
		Hostname: "node01.example.org", MachineID: "0123456789abcdef0123456789abcdef", ProductUUID: "4c4c4544-0042-3510-8054-b9c04f4c3632", Virtual: "kvm",
		Disks: []Disk{
			{Path: "/", Mount: "/", Kind: "xfs", Size: 17811456 * 1024, Free: 15906816 * 1024, Inodes: 8890000},
			{Path: "/var/lib/etcd", Mount: "/var/lib/etcd", Kind: "xfs", Size: 1038336 * 1024, Free: 1000000 * 1024, Inodes: 524284, ReadOnly: true},
		},
		Links: []Link{
			{Name: "lo", MTU: 65536, Up: true, Kind: "loopback", Addresses: []netip.Prefix{p("127.0.0.1/8")}},
			{Name: "ens3", MAC: "52:54:00:12:34:56", MTU: 1500, Up: true, Physical: true, Addresses: []netip.Prefix{p("192.168.233.30/24")}},
			{Name: "flannel.1", MAC: "be:d1:5e:00:00:01", MTU: 1450, Up: true, Kind: "vxlan", Addresses: []netip.Prefix{p("10.244.1.0/32")}},
			{Name: "tunl0", MTU: 1480, Kind: "ipip"},
		},
		Routes: []Route{
			{Dst: p("0.0.0.0/0"), Via: a("192.168.233.1"), Dev: "ens3"}, {Dst: p("10.244.0.0/24"), Via: a("10.244.0.0"), Dev: "flannel.1"},
			{Dst: p("192.168.233.0/24"), Dev: "ens3", Src: a("192.168.233.30")},
		},
		Time: Time{Zone: "Europe/Vienna", Offset: "+0100", Synchronized: "yes"}, Swap: []Swap{{"/dev/dm-1", 2097148 * 1024}}, SELinux: "enforcing",
		Resolvers: []Resolver{{Path: "/etc/resolv.conf", Servers: []netip.Addr{a("127.0.0.53")}}, {Path: "/run/systemd/resolve/resolv.conf", Servers: []netip.Addr{a("192.168.233.1")}}, {Path: "/run/NetworkManager/no-stub-resolv.conf"}},
		Firewall: Firewall{
			Firewalld: true, Drops: []string{"ip filter FORWARD", "inet fw in"}, Chains: map[string]int{"KUBE-": 53}, Tables: []string{"inet firewalld", "ip filter"},
			Denies: []string{"ip filter -A INPUT -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable"},
		},
		Listening: []Socket{
			{Protocol: "tcp", Address: a("0.0.0.0"), Port: 22, Program: "sshd", PIDs: []int{812}}, {Protocol: "tcp", Address: a("0.0.0.0"), Port: 6443, Program: "nginx", PIDs: []int{902, 901}},
			{Protocol: "tcp", Address: a("127.0.0.53"), Device: "lo", Port: 53, Program: "systemd-resolve", PIDs: []int{500}}, {Protocol: "tcp", Address: a("::"), Port: 9090, Program: "systemd", PIDs: []int{1}},
			{Protocol: "tcp", Address: a("::"), Port: 22, Program: "sshd", PIDs: []int{812}}, {Protocol: "udp", Address: a("0.0.0.0"), Port: 8472},
			{Protocol: "udp", Address: a("127.0.0.1"), Port: 323, Program: "chronyd", PIDs: []int{700}},
		},
		Units: map[string]Unit{"kubelet.service": {"active", 4711}}, Modules: map[string]State{"br_netfilter": Available, "overlay": Loaded, "ipip": Missing},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "0", "net.ipv4.ip_local_port_range": "32768 60999"},
		Cgroup:  Cgroup{2, []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}}, PackageManager: "dnf",
		Packages: map[string]string{"iptables-nft": "1.8.10-2.el9", "curl": "7.76.1-29.el9_4"}, Commands: map[string]string{"curl": "/usr/bin/curl"},
		Left: []string{"/etc/cni/net.d/10-flannel.conflist"}, Own: map[string]string{"/var/lib/slipway/undo": "", "/etc/kubernetes/slipway/etcd-cluster": "abc"},
	}
	if d := cmp.Diff(want, got, byText); d != "" {
		t.Error(d)
	}
	raw, err := json.Marshal(got)
	var again Facts
	if err == nil {
		err = json.Unmarshal(raw, &again)
	}
	if d := cmp.Diff(want, again, byText); err != nil || d != "" {
		t.Errorf("as JSON: %v %s", err, d)
	}
}

// A container with busybox alone: no ss, a clock that shows whole seconds, a
// process namespace that is not the kernel's first.
func TestParseBusybox(t *testing.T) {
	got, c, err := parse(recorded(t, "busybox.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Shared || got.Root || !got.CgroupV1() || got.PackageManager != "apk" || got.SELinux != "disabled" || got.Modules["vxlan"] != Unknown {
		t.Errorf("%+v", got)
	}
	want := []Socket{
		{Protocol: "tcp", Address: netip.MustParseAddr("127.0.0.1"), Port: 2379}, {Protocol: "tcp", Address: netip.IPv6Unspecified(), Port: 6443},
		{Protocol: "udp", Address: netip.IPv4Unspecified(), Port: 8472},
	}
	if d := cmp.Diff(want, got.Listening, byText); d != "" {
		t.Error(d)
	}
	if c.coarse != time.Second/2 {
		t.Errorf("a clock of whole seconds is known to within %s", c.coarse)
	}
}

// What is not the script's output, or not all of it, is no fact.
func TestGarbled(t *testing.T) {
	whole := recorded(t, "rocky9.txt")
	at := strings.Index(whole, "sysctl\t")
	for name, out := range map[string]string{
		"nothing": "", "a shell that is none": "This account is currently not available.\n", "cut off": whole[:at], "cut in a line": whole[:at+10],
		"words between": whole[:at] + "Broadcast message from root\n" + whole[at:], "twice": whole + whole, "no number": strings.Replace(whole, "cpus\t4", "cpus\tfour", 1),
		"bytes lost": strings.Replace(whole, "192.168.233.30/24", "192.168.233", 1), "no module's state": strings.Replace(whole, "\tmissing", "\tmissi", 1),
	} {
		if f, err := Parse([]byte(out)); !errors.Is(err, ErrGarbled) {
			t.Errorf("%s: %v %+v", name, err, f)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"rocky9.txt", "busybox.txt"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, out string) {
		got, err := Parse([]byte(out))
		if err != nil {
			return
		}
		if _, err := json.Marshal(got); err != nil {
			t.Error(err)
		}
	})
}

// What the script itself takes says nothing of the way: a clock that is an hour
// ahead is known to within half of the rest.
func TestSkew(t *testing.T) {
	before := time.Unix(1000, 0)
	for _, c := range []struct {
		name                  string
		took                  time.Duration // as we see it
		begin, end            time.Duration // by the host's clock, after before
		coarse                time.Duration
		wantAhead, wantWithin time.Duration
	}{
		{"no way at all", 3 * time.Second, time.Hour, time.Hour + 3*time.Second, 0, time.Hour, 0},
		{"a way of 200 ms", 3*time.Second + 200*time.Millisecond, time.Hour + 100*time.Millisecond, time.Hour + 100*time.Millisecond + 3*time.Second, 0, time.Hour, 100 * time.Millisecond},
		{"behind", 400 * time.Millisecond, -time.Minute + 100*time.Millisecond, -time.Minute + 300*time.Millisecond, 0, -time.Minute, 100 * time.Millisecond},
		{"set meanwhile", time.Second, time.Hour + 500*time.Millisecond, 2 * time.Hour, 0, time.Hour, 500 * time.Millisecond},
		{"whole seconds", time.Second, 500 * time.Millisecond, 500 * time.Millisecond, time.Second / 2, 0, time.Second},
	} {
		ahead, within := skew(before, before.Add(c.took), clocks{before.Add(c.begin), before.Add(c.end), c.coarse})
		if ahead != c.wantAhead || within != c.wantWithin {
			t.Errorf("%s: %s ± %s, want %s ± %s", c.name, ahead, within, c.wantAhead, c.wantWithin)
		}
	}
}
