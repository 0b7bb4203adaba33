package preflight

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/topology"
)

// oldest are the oldest releases of distributions, by os-release(5)'s ID.
var oldest = map[string]string{"debian": "11", "ubuntu": "20.04", "rhel": "8", "rocky": "8", "almalinux": "8", "centos": "8", "ol": "8", "fedora": "38"}

const systems = "use Debian 11, Ubuntu 20.04, RHEL, Rocky, AlmaLinux or CentOS Stream 8, or newer"

func checkOS(j *judge, _ topology.NodeState, f facts.Facts) {
	family := f.OS.ID
	if oldest[family] == "" {
		for _, like := range f.OS.Like { // derivatives count their own releases
			if oldest[like] != "" {
				j.warn(systems, "%s, which is like %s", f.OS.Name, like)
				return
			}
		}
		j.warn(systems, "%s is no system that an installation was written for", f.OS.Name)
		return
	}
	if f.OS.Version != "" && older(f.OS.Version, oldest[family]) { // testing and sid have none
		j.fail(systems, "%s is too old", f.OS.Name)
	}
}

// older compares numbers with dots between, as far as they are numbers.
func older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	for i := range max(len(x), len(y)) {
		var l, r int
		if i < len(x) {
			l = x[i]
		}
		if i < len(y) {
			r = y[i]
		}
		if l != r {
			return l < r
		}
	}
	return false
}

func numbers(s string) (out []int) {
	for part := range strings.SplitSeq(s, ".") {
		digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		whole := digits < 0
		if whole {
			digits = len(part)
		}
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			return out
		}
		out = append(out, n)
		if !whole {
			return out
		}
	}
	return out
}

// Oldest kernels: what kubeadm's preflight asks for (k8s.io/system-validators
// types_unix.go, KernelSpec: 4.19 and 5 and newer), and kube-proxy's nftables mode
// (pkg/proxy/nftables proxier.go, 5.13).
const (
	oldestKernel    = "4.19"
	oldestNFTKernel = "5.13"
)

func checkKernel(j *judge, n topology.NodeState, f facts.Facts) {
	if older(f.Kernel, oldestKernel) {
		j.fail("upgrade the kernel", "Linux %s is older than %s", f.Kernel, oldestKernel)
		return
	}
	if j.proxied(n) && j.in.Cluster.Spec.Proxy.Mode == topology.ProxyNFTables && older(f.Kernel, oldestNFTKernel) {
		j.fail("upgrade the kernel, or use spec.proxy.mode: iptables", "Linux %s is older than %s, which kube-proxy's nftables mode needs", f.Kernel, oldestNFTKernel)
	}
}

// machines are Go's names of processors, by uname's.
var machines = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

func checkArchitecture(j *judge, _ topology.NodeState, f facts.Facts) {
	if machines[f.Arch] != runtime.GOARCH {
		j.fail("run the installation from a machine like it: programs are built for its own processor", "the processor is %s, and the programs are for %s", f.Arch, runtime.GOARCH)
	}
}

func checkInit(j *judge, _ topology.NodeState, f facts.Facts) {
	if f.Commands["systemctl"] == "" {
		j.fail("services are units of systemd: use a system that has it", "there is no systemctl (process 1 is %s)", f.Init)
	} else if f.Init != "systemd" && !f.Shared {
		j.fail("boot the machine with systemd", "process 1 is %s, and not systemd", f.Init)
	}
}

func checkRoot(j *judge, _ topology.NodeState, f facts.Facts) {
	if !f.Root {
		j.fail("connect as root, or as a user with sudo", "commands do not run as root")
	}
}

// minCPUs is what control planes and workers need (kubeadm constants.go,
// ControlPlaneNumCPU).
const minCPUs = 2

func checkCPU(j *judge, n topology.NodeState, f facts.Facts) {
	if (n.HasRole(topology.RoleControlPlane) || n.HasRole(topology.RoleWorker)) && f.CPUs < minCPUs {
		j.fail("give it more processors", "%d processor, and %s needs %d", f.CPUs, roles(n), minCPUs)
	}
}

func checkMemory(j *judge, n topology.NodeState, f facts.Facts) {
	var least int64
	var words string
	switch {
	case n.HasRole(topology.RoleWorker):
		least, words = cluster.WorkerMemory, "4 GB"
	case n.HasRole(topology.RoleControlPlane):
		least, words = cluster.ControlPlaneMemory, "2 GB"
	}
	if f.Memory < least {
		j.fail("give it more memory", "%s of memory, and %s needs %s", size(f.Memory), roles(n), words)
	}
}

func roles(n topology.NodeState) string {
	var out []string
	for _, r := range n.Roles {
		out = append(out, string(r))
	}
	return "a node of role " + strings.Join(out, ", ")
}

// size prints bytes.
func size(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func checkSwap(j *judge, _ topology.NodeState, f facts.Facts) {
	if len(f.Swap) == 0 {
		return
	}
	var paths []string
	for _, s := range f.Swap {
		paths = append(paths, s.Path)
	}
	if f.Shared {
		j.warn("it is the machine's below, and stays as it is", "swap on %s", strings.Join(paths, ", "))
		return
	}
	j.warn("take it out of /etc/fstab (and mask its unit): the installation turns it off now, and a reboot would bring it back", "swap on %s", strings.Join(paths, ", "))
}

func checkSELinux(j *judge, _ topology.NodeState, f facts.Facts) {
	if f.SELinux == "enforcing" {
		j.fail("setenforce 0, and SELINUX=permissive in /etc/selinux/config", "SELinux enforces its policy")
	}
}

// modules are what needs some of the kernel, and which of them will do.
func (j *judge) modules(n topology.NodeState) map[string][]string {
	out := map[string][]string{}
	if j.full(n) {
		out["containers"] = []string{"overlay"}
	}
	if j.proxied(n) {
		out["services"] = []string{"br_netfilter"}
		out["connection tracking"] = []string{"nf_conntrack"}
		if j.in.Cluster.Spec.Proxy.Mode == topology.ProxyNFTables {
			out["kube-proxy's rules"] = []string{"nf_tables"}
		} else {
			out["kube-proxy's rules"] = []string{"ip_tables", "nf_tables"} // iptables is of either kind
		}
	}
	if n.InDatapath() {
		switch net := j.in.Snapshot.Network; {
		case net.Mode == topology.FlannelVXLAN:
			out["mode flannel-vxlan"] = []string{"vxlan"}
		case net.Mode == topology.FlannelUDP && net.UDP.Implementation != topology.UDPeBPF:
			out["mode flannel-udp"] = []string{"tun"}
		case net.Mode == topology.CalicoIPIP && net.IPIP.Implementation == topology.IPIPKernel:
			out["mode calico-ipip"] = []string{"ipip"}
		}
	}
	return out
}

func checkModules(j *judge, n topology.NodeState, f facts.Facts) {
	needs := j.modules(n)
	for _, what := range sortedKeys(needs) {
		names := needs[what]
		states := map[facts.State]bool{}
		for _, m := range names {
			states[f.Modules[m]] = true
		}
		said := strings.Join(names, " or ")
		switch {
		case states[facts.Loaded]:
		case states[facts.Available] && !f.Shared:
		case f.Shared && (names[0] == "br_netfilter" || names[0] == "overlay"): // the installation would load it, and cannot
			j.fail("load it on the machine below (modprobe "+names[0]+"): a container cannot", "the kernel has not loaded %s, for %s", said, what)
		case states[facts.Available]:
			j.warn("load it on the machine below (modprobe "+names[0]+"): a container cannot", "the kernel has not loaded %s, for %s", said, what)
		case states[facts.Unknown]:
			j.warn("nothing, if the kernel has it built in; modprobe "+names[0]+" on the machine below otherwise", "nobody can tell here whether the kernel has %s, for %s", said, what)
		default:
			j.fail("install the kernel's package with its modules (linux-modules-extra, kernel-modules-extra)", "the kernel has no module %s, for %s", said, what)
		}
	}
}

// fewInstances is less than kubelet, its pods and a container runtime take
// (the kernel's own default is 128, fs/notify/inotify/inotify_user.c).
const fewInstances = 128

func checkSysctls(j *judge, n topology.NodeState, f facts.Facts) {
	if v, err := strconv.Atoi(f.Sysctls["fs.inotify.max_user_instances"]); err == nil && v < fewInstances && j.full(n) {
		j.warn("sysctl fs.inotify.max_user_instances=1024, and a file in /etc/sysctl.d", "fs.inotify.max_user_instances is %d", v)
	}
	var first, last int
	ports := j.in.Cluster.Spec.Proxy.NodePorts
	if _, err := fmt.Sscan(f.Sysctls["net.ipv4.ip_local_port_range"], &first, &last); err != nil || !j.proxied(n) || last < ports.First || first > ports.Last {
		return
	}
	if f.Sysctls["net.ipv4.ip_local_reserved_ports"] == "" {
		j.warn(fmt.Sprintf("sysctl net.ipv4.ip_local_reserved_ports=%d-%d, or another range", ports.First, ports.Last),
			"programs get ports of %d to %d by chance (net.ipv4.ip_local_port_range), and some of them are NodePorts", first, last)
	}
}

// room is what is needed below a directory, in bytes.
type room struct {
	path string
	need int64
	what string
}

const gib = 1 << 30

func (j *judge) rooms(n topology.NodeState) []room {
	out := []room{{"/opt/slipway", gib, "programs"}}
	if slices.ContainsFunc(cluster.Listeners(j.in, n), func(l cluster.Listener) bool { return l.Unit == "etcd.service" }) {
		out = append(out, room{"/var/lib/etcd", 2 * gib, "etcd's data"}) // its quota (etcd server/etcdserver/quota.go)
	}
	if j.full(n) {
		out = append(out, room{"/var/lib/containerd", 2 * gib, "images"}, room{"/var/lib/kubelet", 0, "pods"})
	}
	return out
}

// What kubelet evicts pods at: less than 10 % of its own file system free, or 15 %
// of that with images (kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction);
// few is how many more files there should be room for at least.
const (
	evictAt = 0.15
	few     = 10000
)

func checkDisk(j *judge, n topology.NodeState, f facts.Facts) {
	at := map[string]facts.Disk{}
	for _, d := range f.Disks {
		at[d.Path] = d
	}
	for _, path := range []string{"/etc", "/usr/local/bin", "/var/lib", "/opt/slipway", "/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet"} {
		if d := at[path]; d.ReadOnly {
			j.fail("mount "+d.Mount+" to be written to", "%s is on %s, which is read-only", path, d.Mount)
		}
	}
	need, what := map[string]int64{}, map[string][]string{}
	for _, r := range j.rooms(n) {
		d, known := at[r.path]
		if !known {
			continue
		}
		need[d.Mount] += r.need
		what[d.Mount] = append(what[d.Mount], r.what)
	}
	for _, mount := range sortedKeys(need) {
		i := slices.IndexFunc(f.Disks, func(d facts.Disk) bool { return d.Mount == mount })
		d, things := f.Disks[i], strings.Join(what[mount], ", ")
		switch {
		case d.Free < need[mount] && !ours(f):
			j.fail("make room on it, or give "+things+" a disk of their own", "%s has %s free, and %s need %s", mount, size(d.Free), things, size(need[mount]))
		case d.Free == 0:
			j.fail("make room on it", "%s is full", mount)
		case d.Inodes > 0 && d.Inodes < few:
			j.warn("make room on it: remove small files", "%s has room for %d more files", mount, d.Inodes)
		case j.full(n) && !f.Shared && slices.Contains(what[mount], "images") && float64(d.Free) < evictAt*float64(d.Size):
			j.warn("make room on it: kubelet evicts pods from here on", "%s has %s free of %s", mount, size(d.Free), size(d.Size))
		}
	}
}

func checkCgroup(j *judge, n topology.NodeState, f facts.Facts) {
	if !j.full(n) {
		return
	}
	if f.CgroupV1() {
		j.warn("boot with systemd.unified_cgroup_hierarchy=1: Kubernetes keeps version 1 for old machines alone", "control groups are of version 1")
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(f.Cgroup.Controllers, c) {
			j.fail("boot with cgroup_enable="+c, "there are no control groups of %s", c)
		}
	}
}
