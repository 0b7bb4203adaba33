package preflight

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/topology"
)

const file = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  components: full
  nodes:
    - {name: master01, roles: [control-plane, etcd], address: 192.168.233.10}
    - {name: node01, roles: [worker], address: 192.168.233.30}
    - {name: lb01, roles: [load-balancer], address: 192.168.233.50}
  controlPlane: {loadBalancer: {mode: external, vip: 192.168.233.100}}
`

func parsed(t *testing.T, text string) (*topology.Cluster, *topology.Snapshot) {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(text))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

// good is a machine that nobody can find fault with.
func good(number int, address string) *facts.Facts {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	f := &facts.Facts{
		OS: facts.OS{ID: "debian", Version: "12", Name: "Debian GNU/Linux 12 (bookworm)"}, Kernel: "6.1.0-30-amd64", Arch: arch, Init: "systemd", Root: true,
		CPUs: 2, Memory: 4000000 << 10, Hostname: fmt.Sprintf("host%d", number), MachineID: fmt.Sprintf("%032x", number), ProductUUID: fmt.Sprintf("uuid-%d", number),
		Links: []facts.Link{
			{Name: "lo", MTU: 65536, Up: true, Kind: "loopback", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
			{Name: "ens3", MAC: fmt.Sprintf("52:54:00:00:00:%02x", number), MTU: 1500, Up: true, Physical: true, Addresses: []netip.Prefix{netip.MustParsePrefix(address + "/24")}},
		},
		Routes: []facts.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: "ens3"}}, Time: facts.Time{Zone: "UTC", Offset: "+0000", Synchronized: "yes", Within: 50 * time.Millisecond},
		SELinux: "disabled", Modules: map[string]facts.State{}, Sysctls: map[string]string{"net.ipv4.ip_local_port_range": "32768 60999"},
		Cgroup: facts.Cgroup{Version: 2, Controllers: []string{"cpu", "memory", "pids"}}, PackageManager: "apt-get", Commands: map[string]string{},
		Listening: []facts.Socket{{Protocol: "tcp", Address: netip.IPv4Unspecified(), Port: 22, Program: "sshd", PIDs: []int{1}}},
		Firewall:  facts.Firewall{}, Packages: map[string]string{"libnginx-mod-stream": "1.22"},
	}
	for _, m := range []string{"br_netfilter", "overlay", "vxlan", "ipip", "tun", "nf_conntrack", "ip_tables", "nf_tables"} {
		f.Modules[m] = facts.Available
	}
	for _, c := range strings.Fields("base64 sha256sum stat install mktemp awk grep sed curl ip ss iptables-restore nft conntrack bash nginx haproxy keepalived systemctl") {
		f.Commands[c] = "/usr/bin/" + c
	}
	for _, p := range []string{"/", "/etc", "/opt/slipway", "/usr/local/bin", "/var/lib", "/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet"} {
		f.Disks = append(f.Disks, facts.Disk{Path: p, Mount: "/", Kind: "ext4", Size: 40 << 30, Free: 30 << 30, Inodes: 1 << 20})
	}
	return f
}

type fleet struct{ master, node, lb *facts.Facts }

func newFleet() fleet {
	f := fleet{good(1, "192.168.233.10"), good(2, "192.168.233.30"), good(3, "192.168.233.50")}
	f.lb.Memory, f.lb.CPUs = 512<<20, 1 // roles have needs of their own
	f.master.Memory = 2000000 << 10
	return f
}

func (f fleet) check(t *testing.T, text string, ignore ...string) []Finding {
	t.Helper()
	c, s := parsed(t, text)
	got, err := Check(c, s, map[string]facts.Facts{"master01": *f.master, "node01": *f.node, "lb01": *f.lb}, ignore)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// bad are the findings that are not ok, as "severity check host: text".
func bad(all []Finding) (out []string) {
	for _, f := range all {
		if f.Severity != OK {
			out = append(out, fmt.Sprintf("%s %s %s: %s", f.Severity, f.Check, f.Host, f.Text))
		}
	}
	return out
}

// Good machines get an ok of each check, for each host.
func TestNothingToFind(t *testing.T) {
	got := newFleet().check(t, file)
	if b := bad(got); len(b) > 0 || Failed(got) {
		t.Errorf("%q", b)
	}
	if want := len(checks) * 3; len(got) != want {
		t.Errorf("%d findings, want %d", len(got), want)
	}
}

func listen(f *facts.Facts, protocol, address string, port int, program string, pid int) {
	f.Listening = append(f.Listening, facts.Socket{Protocol: protocol, Address: netip.MustParseAddr(address), Port: port, Program: program, PIDs: []int{pid}})
}

// Each fault is found, on the machine that has it, and nothing else is.
func TestFaults(t *testing.T) {
	disk := func(f *facts.Facts, path string, change func(d *facts.Disk)) {
		for i := range f.Disks {
			if f.Disks[i].Path == path {
				change(&f.Disks[i])
			}
		}
	}
	nftables := strings.Replace(file, "components: full", "components: full\n  proxy: {mode: nftables}", 1)
	for name, c := range map[string]struct {
		file  string // that of this test unless told
		spoil func(f fleet)
		want  []string // beginnings
	}{
		"an old system":         {spoil: func(f fleet) { f.node.OS.Version = "10"; f.node.OS.Name = "Debian 10" }, want: []string{"error os node01: Debian 10 is too old"}},
		"testing has no number": {spoil: func(f fleet) { f.node.OS.Version = "" }},
		"a relative": {spoil: func(f fleet) {
			f.node.OS = facts.OS{ID: "linuxmint", Version: "21", Like: []string{"ubuntu", "debian"}, Name: "Mint"}
		}, want: []string{"warning os node01: Mint, which is like ubuntu"}},
		"a stranger":               {spoil: func(f fleet) { f.node.OS = facts.OS{ID: "alpine", Name: "Alpine"} }, want: []string{"warning os node01: Alpine is no system"}},
		"RHEL 8.9 is newer than 8": {spoil: func(f fleet) { f.node.OS = facts.OS{ID: "rhel", Version: "8.9"} }},
		"an old kernel":            {spoil: func(f fleet) { f.node.Kernel = "4.18.0-553.el8_10.x86_64" }, want: []string{"error kernel node01: Linux 4.18.0-553.el8_10.x86_64 is older than 4.19"}},
		"old for nftables":         {file: nftables, spoil: func(f fleet) { f.lb.Kernel = "5.10.0"; f.node.Kernel = "5.10.0" }, want: []string{"error kernel node01: Linux 5.10.0 is older than 5.13"}},
		"another processor":        {spoil: func(f fleet) { f.node.Arch = "riscv64" }, want: []string{"error architecture node01: the processor is riscv64"}},
		"no systemd":               {spoil: func(f fleet) { delete(f.node.Commands, "systemctl"); f.node.Init = "init" }, want: []string{"error init node01: there is no systemctl (process 1 is init)"}},
		"no root":                  {spoil: func(f fleet) { f.node.Root = false }, want: []string{"error root node01"}},
		"one processor":            {spoil: func(f fleet) { f.master.CPUs = 1 }, want: []string{"error cpu master01: 1 processor, and a node of role control-plane, etcd needs 2"}},
		"little memory":            {spoil: func(f fleet) { f.master.Memory = 1 << 30; f.node.Memory = 2 << 30 }, want: []string{"error memory master01: 1.0 GiB of memory", "error memory node01: 2.0 GiB of memory, and a node of role worker needs 4 GB"}},
		"one host name":            {spoil: func(f fleet) { f.node.Hostname = f.master.Hostname }, want: []string{"error hostname master01: its host name is host1, and so is that of node01", "error hostname node01: its host name is host1, and so is that of master01"}},
		"a copied disk":            {spoil: func(f fleet) { f.node.MachineID = f.lb.MachineID }, want: []string{"error machine-id node01", "error machine-id lb01"}},
		"no machine-id":            {spoil: func(f fleet) { f.node.MachineID = "" }, want: []string{"error machine-id node01: /etc/machine-id is missing"}},
		"a copied machine":         {spoil: func(f fleet) { f.node.ProductUUID = f.master.ProductUUID }, want: []string{"error product-uuid master01", "error product-uuid node01"}},
		"containers of one machine": {spoil: func(f fleet) {
			f.node.ProductUUID, f.node.Shared = f.master.ProductUUID, true
			all(f.node.Modules, facts.Loaded)
		}},
		"a copied card":   {spoil: func(f fleet) { f.node.Links[1].MAC = f.master.Links[1].MAC }, want: []string{"error mac master01: ens3 has the MAC 52:54:00:00:00:01, and so has ens3 of node01", "error mac node01"}},
		"another address": {spoil: func(f fleet) { f.node.Links[1].Addresses[0] = netip.MustParsePrefix("10.0.0.7/24") }, want: []string{"error own-address node01: it does not have the address 192.168.233.30, which the cluster file gives it; it has 10.0.0.7"}},
		"another prefix":  {spoil: func(f fleet) { f.node.Links[1].Addresses[0] = netip.MustParsePrefix("192.168.233.30/16") }, want: []string{"warning own-address node01: its address is 192.168.233.30/16, and the segment's prefix is /24"}},
		"an address twice": {spoil: func(f fleet) {
			f.node.Links[1].Addresses = append(f.node.Links[1].Addresses, netip.MustParsePrefix("192.168.233.10/24"))
		}, want: []string{"error unique-address node01: it has 192.168.233.10 on ens3, which is the address of master01"}},
		"the VIP is taken": {spoil: func(f fleet) {
			f.node.Links[1].Addresses = append(f.node.Links[1].Addresses, netip.MustParsePrefix("192.168.233.100/32"))
		}, want: []string{"error unique-address node01: it has 192.168.233.100 on ens3, which is the balancers'"}},
		"the VIP is at a balancer": {spoil: func(f fleet) {
			f.lb.Links[1].Addresses = append(f.lb.Links[1].Addresses, netip.MustParsePrefix("192.168.233.100/32"))
		}},
		"small packets":    {spoil: func(f fleet) { f.node.Links[1].MTU = 1400 }, want: []string{"error mtu node01: ens3 has an MTU of 1400, and segment"}},
		"no default route": {spoil: func(f fleet) { f.node.Routes, f.lb.Routes = f.node.Routes[:0], nil }, want: []string{"error route node01: there is no route to 10.96.0.1"}},
		"a resolver of its own": {spoil: func(f fleet) {
			f.node.Resolvers = []facts.Resolver{{Path: "/etc/resolv.conf", Servers: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}
			f.master.Resolvers = []facts.Resolver{{Path: "/etc/resolv.conf", Servers: []netip.Addr{netip.MustParseAddr("127.0.0.53")}}, {Path: "/run/systemd/resolve/resolv.conf", Servers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}
			f.lb.Resolvers = []facts.Resolver{{Path: "/etc/resolv.conf"}} // runs no pods
		}, want: []string{"warning name-servers node01: pods cannot ask its name server 127.0.0.1, which is the machine's own loopback"}},
		"nobody to ask":              {spoil: func(f fleet) { f.node.Resolvers = []facts.Resolver{{Path: "/etc/resolv.conf"}} }, want: []string{"warning name-servers node01: it has no name server"}},
		"a clock that is far off":    {spoil: func(f fleet) { f.node.Time.Skew = -10 * time.Minute }, want: []string{"warning time master01: its clock is 10m0s from that of node01", "error time node01: its clock is -10m0s from the operator's", "warning time lb01"}},
		"clocks apart":               {spoil: func(f fleet) { f.node.Time.Skew = 3 * time.Second }, want: []string{"warning time master01: its clock is -3s from that of node01", "warning time node01: its clock is 3s from that of master01", "warning time lb01"}},
		"clocks that nobody can see": {spoil: func(f fleet) { f.node.Time.Skew, f.node.Time.Within = 3*time.Second, 3*time.Second }},
		"nobody sets the clock":      {spoil: func(f fleet) { f.node.Time.Synchronized = "no" }, want: []string{"warning time node01: nothing keeps its clock right"}},
		"zones":                      {spoil: func(f fleet) { f.lb.Time.Zone, f.lb.Time.Offset = "Europe/Vienna", "+0100" }, want: []string{"warning zone master01", "warning zone node01", "warning zone lb01: it shows local time of +0100 (Europe/Vienna), and master01 of +0000 (UTC)"}},
		"swap":                       {spoil: func(f fleet) { f.node.Swap = []facts.Swap{{Path: "/dev/sda2", Size: 1 << 30}} }, want: []string{"warning swap node01: swap on /dev/sda2"}},
		"SELinux":                    {spoil: func(f fleet) { f.node.SELinux = "enforcing"; f.lb.SELinux = "permissive" }, want: []string{"error selinux node01"}},
		"firewalls": {spoil: func(f fleet) {
			f.node.Firewall.UFW, f.master.Firewall.Firewalld, f.lb.Firewall.Drops = true, true, []string{"ip filter INPUT"}
		}, want: []string{"warning firewall master01: firewalld runs", "warning firewall node01: ufw is on", "warning firewall lb01: packets that no rule lets pass are dropped in ip filter INPUT"}},
		"a port that is taken": {spoil: func(f fleet) { listen(f.node, "tcp", "::", 10250, "telegraf", 77) }, want: []string{"error ports node01: [::]:10250/tcp of kubelet.service is in use by telegraf, process 77"}},
		"taken where it is no matter": {spoil: func(f fleet) {
			listen(f.node, "tcp", "::", 6443, "x", 7)                // no API server there
			listen(f.node, "tcp", "172.17.0.1", 10250, "x", 7)       // another of its addresses
			listen(f.master, "udp", "0.0.0.0", 2379, "x", 7)         // another protocol
			listen(f.master, "tcp", "192.168.233.10", 10257, "x", 7) // the controller manager is at the loopback
		}},
		"taken by our own": {spoil: func(f fleet) {
			listen(f.node, "tcp", "192.168.233.30", 10250, "kubelet", 7)
			f.node.Units = map[string]facts.Unit{"kubelet.service": {State: "active", PID: 7}}
			f.node.Own = map[string]string{"/var/lib/slipway/undo": ""}
		}},
		"a foreign VXLAN device": {spoil: func(f fleet) { listen(f.node, "udp", "0.0.0.0", 8472, "", 0); f.node.Listening[1].PIDs = nil }, want: []string{"error ports node01: 0.0.0.0:8472/udp of slipway-agent.service is in use by the kernel"}},
		"modules": {spoil: func(f fleet) {
			f.node.Modules["vxlan"], f.node.Modules["ip_tables"], f.master.Modules["overlay"] = facts.Missing, facts.Missing, facts.Unknown
			f.lb.Modules = nil
		}, want: []string{"warning modules master01: nobody can tell here whether the kernel has overlay", "error modules node01: the kernel has no module vxlan, for mode flannel-vxlan"}},
		"a module that a container cannot load": {spoil: func(f fleet) {
			f.node.Shared = true
			f.node.Modules = all(f.node.Modules, facts.Loaded)
			f.node.Modules["br_netfilter"], f.node.Modules["vxlan"] = facts.Unknown, facts.Available
		}, want: []string{"warning modules node01: the kernel has not loaded vxlan, for mode flannel-vxlan", "error modules node01: the kernel has not loaded br_netfilter, for services"}},
		"sysctls": {spoil: func(f fleet) {
			f.node.Sysctls = map[string]string{"fs.inotify.max_user_instances": "64", "net.ipv4.ip_local_port_range": "1024 65535"}
		}, want: []string{"warning sysctls node01: fs.inotify.max_user_instances is 64", "warning sysctls node01: programs get ports of 1024 to 65535 by chance"}},
		"a full disk": {spoil: func(f fleet) {
			for i := range f.master.Disks {
				f.master.Disks[i].Free = 1 << 30
			}
		}, want: []string{"error disk master01: / has 1.0 GiB free, and programs, etcd's data, images, pods need 5.0 GiB"}},
		"a read-only disk": {spoil: func(f fleet) {
			disk(f.master, "/var/lib/etcd", func(d *facts.Disk) { d.Mount, d.ReadOnly = "/var/lib/etcd", true })
		}, want: []string{"error disk master01: /var/lib/etcd is on /var/lib/etcd, which is read-only"}},
		"a disk of its own that is small": {spoil: func(f fleet) {
			disk(f.master, "/var/lib/etcd", func(d *facts.Disk) { d.Mount, d.Free = "/var/lib/etcd", 1<<30 })
		}, want: []string{"error disk master01: /var/lib/etcd has 1.0 GiB free, and etcd's data need 2.0 GiB"}},
		"near eviction": {spoil: func(f fleet) {
			disk(f.node, "/var/lib/containerd", func(d *facts.Disk) { d.Mount, d.Free = "/data", 4<<30 })
		}, want: []string{"warning disk node01: /data has 4.0 GiB free of 40.0 GiB"}},
		"cgroups": {spoil: func(f fleet) {
			f.node.Cgroup = facts.Cgroup{Version: 1, Controllers: []string{"cpu", "pids"}}
			f.lb.Cgroup = facts.Cgroup{}
		}, want: []string{"warning cgroup node01: control groups are of version 1", "error cgroup node01: there are no control groups of memory"}},
		"an older network": {spoil: func(f fleet) {
			f.node.Links = append(f.node.Links, facts.Link{Name: "flannel.1", Kind: "vxlan"}, facts.Link{Name: "tunl0"}, facts.Link{Name: "cali123"})
			f.node.Firewall.Chains = map[string]int{"KUBE-": 40, "cali-": 3}
			f.node.Left = []string{"/etc/cni/net.d/10-calico.conflist"}
		}, want: []string{
			"error cni-leftovers node01: there are devices of an older pod network: flannel.1, cali123", "error cni-leftovers node01: there are chains of another cluster's: KUBE-*, cali-*",
			"error cni-leftovers node01: there are files of an older pod network: /etc/cni/net.d/10-calico.conflist",
		}},
		"our own network": {spoil: func(f fleet) {
			f.node.Own = map[string]string{"/var/lib/slipway/undo": ""}
			f.node.Links = append(f.node.Links, facts.Link{Name: "flannel.1", Kind: "vxlan"})
			f.node.Firewall.Chains, f.node.Left = map[string]int{"KUBE-": 40}, []string{"/etc/cni/net.d/10-slipway.conflist", "/var/lib/kubelet/config.yaml"}
		}},
		"another cluster": {spoil: func(f fleet) {
			f.node.Left = []string{"/etc/kubernetes/kubelet.conf"}
			f.master.Units = map[string]facts.Unit{"k3s.service": {State: "active"}}
		}, want: []string{"error other-cluster master01: services of another cluster run: k3s.service", "error other-cluster node01: there are files of another cluster: /etc/kubernetes/kubelet.conf"}},
		"docker": {spoil: func(f fleet) {
			f.node.Units = map[string]facts.Unit{"docker.service": {State: "active"}}
			f.lb.Units = f.node.Units
		}, want: []string{"warning other-runtime node01: another container runtime runs: docker.service"}},
		"programs to be had": {spoil: func(f fleet) { delete(f.node.Commands, "conntrack"); delete(f.lb.Commands, "keepalived") }, want: []string{"warning programs node01: packages are missing: conntrack", "warning programs lb01: packages are missing: keepalived"}},
		"programs not to be had": {spoil: func(f fleet) {
			delete(f.node.Commands, "curl")
			delete(f.node.Commands, "awk")
			f.node.PackageManager = "apk"
		}, want: []string{"error programs node01: there is no awk", "error programs node01: packages are missing: curl"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet()
			c.spoil(f)
			if c.file == "" {
				c.file = file
			}
			got := bad(f.check(t, c.file))
			same := slices.EqualFunc(got, c.want, strings.HasPrefix)
			if !same {
				t.Errorf("\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func all(m map[string]facts.State, s facts.State) map[string]facts.State {
	for k := range m {
		m[k] = s
	}
	return m
}

// What an operator ignores is a warning, and says so; a name that is no check's
// is an error that names all.
func TestIgnore(t *testing.T) {
	f := newFleet()
	f.node.Memory, f.node.CPUs = 1<<30, 1
	got := f.check(t, file, "memory")
	if want := []string{"error cpu node01", "warning memory node01"}; !slices.EqualFunc(bad(got), want, strings.HasPrefix) {
		t.Errorf("%q", bad(got))
	}
	for _, x := range got {
		if x.Ignored != (x.Check == "memory" && x.Host == "node01") {
			t.Errorf("%+v", x)
		}
	}
	if got := f.check(t, file, "memory", "cpu"); Failed(got) {
		t.Errorf("%q", bad(got))
	}
	c, s := parsed(t, file)
	_, err := Check(c, s, nil, []string{"cpu", "memry"})
	var unknown *UnknownCheckError
	if !errors.As(err, &unknown) || unknown.Name != "memry" || !strings.Contains(err.Error(), "memory") || !strings.Contains(err.Error(), "mesh") {
		t.Errorf("%v", err)
	}
}

// A host of which nothing is known is not one that is well.
func TestUnknownHost(t *testing.T) {
	c, s := parsed(t, file)
	got, err := Check(c, s, map[string]facts.Facts{"master01": *good(1, "192.168.233.10"), "lb01": *good(3, "192.168.233.50")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b := bad(got); len(b) != 1 || !strings.HasPrefix(b[0], "error os node01: nothing is known of it") {
		t.Errorf("%q", b)
	}
}

// The installation's first phase, the last guard, asks for nothing that cannot be
// ignored by a name, but for what would take over another cluster; and for no
// more memory than the check here does.
func TestOneTruth(t *testing.T) {
	c, s := parsed(t, file)
	requirements := func(ignore ...string) map[string]installer.Require {
		plan, err := cluster.Plan(cluster.Inputs{Cluster: c, Snapshot: s, Ignore: ignore}, "00")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]installer.Require{}
		for _, st := range plan.Phases[0].Steps {
			for _, w := range st.Work {
				for _, it := range w.Items {
					out[w.Host+" "+it.(installer.Require).Name] = it.(installer.Require)
				}
			}
		}
		return out
	}
	for name, r := range requirements() {
		check := cluster.CheckName(r.Name)
		if check == "" {
			continue
		}
		if err := Known([]string{check}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, still := requirements(check)[name]; still {
			t.Errorf("%s is asked for where %s is ignored", name, check)
		}
	}
	if m := requirements()["master01 memory"]; !strings.HasSuffix(m.Check, fmt.Sprintf(" %d", cluster.ControlPlaneMemory>>10)) {
		t.Errorf("%s", m.Check)
	}
}

// The page has the table that the program has.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/preflight.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, d := range Table() {
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", d.Name, d.Worst, d.About)
	}
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/preflight.md has another table of checks:\n%s", want.String())
	}
}
