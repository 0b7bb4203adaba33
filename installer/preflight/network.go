package preflight

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/topology"
)

func checkFirewall(j *judge, _ topology.NodeState, f facts.Facts) {
	const let = "let the cluster's ports pass between its machines (docs/preflight.md), or turn it off; the mesh of ports shows what passes"
	if f.Firewall.UFW {
		j.warn("ufw disable, or "+let, "ufw is on")
	}
	if f.Firewall.Firewalld {
		j.warn("systemctl disable --now firewalld, or "+let, "firewalld runs")
	}
	if len(f.Firewall.Drops) > 0 && !f.Firewall.UFW && !f.Firewall.Firewalld {
		j.warn(let, "packets that no rule lets pass are dropped in %s", strings.Join(f.Firewall.Drops, "; "))
	}
	if len(f.Firewall.Denies) > 0 {
		j.warn(let, "there are rules that drop or reject, as %s", f.Firewall.Denies[0])
	}
}

// port is one that a program of the cluster takes.
type port struct {
	unit, protocol string
	number         int
	loopback       bool
}

// datapath is whose service speaks on a node's ports for the pods' network.
func datapath(s *topology.Snapshot) string {
	switch upstream := s.Network.Implementation == topology.ImplementationUpstream; {
	case upstream && s.Network.Mode.IsCalico():
		return "calico-bird.service"
	case upstream:
		return "flanneld.service"
	}
	return "slipway-agent.service"
}

// bgpPort is BGP's (RFC 4271 §8).
const bgpPort = 179

func (j *judge) ports(n topology.NodeState) (out []port) {
	for _, l := range cluster.Listeners(j.in, n) {
		for _, number := range l.Ports {
			out = append(out, port{l.Unit, "tcp", number, l.Loopback})
		}
	}
	if !j.full(n) {
		return out
	}
	unit := datapath(j.in.Snapshot)
	switch net := j.in.Snapshot.Network; net.Mode {
	case topology.FlannelVXLAN:
		out = append(out, port{unit, "udp", net.VXLAN.Port, false})
	case topology.FlannelUDP:
		out = append(out, port{unit, "udp", net.UDP.Port, false})
	case topology.CalicoBGP, topology.CalicoIPIP:
		out = append(out, port{unit, "tcp", bgpPort, false})
	}
	return out
}

func checkNameServers(j *judge, n topology.NodeState, f facts.Facts) {
	if f.ResolvConf() != "" || !j.full(n) {
		return
	}
	const hint = "give /etc/resolv.conf a server of the network, if pods are to look up names beyond the cluster"
	if servers := f.Resolvers[0].Servers; len(servers) > 0 {
		j.warn(hint, "pods cannot ask its name server %s, which is the machine's own loopback", servers[0])
		return
	}
	j.warn(hint, "it has no name server")
}

func checkPorts(j *judge, n topology.NodeState, f facts.Facts) {
	own := n.Interface.Prefix.Addr()
	for _, p := range j.ports(n) {
		for _, s := range f.Listening {
			if s.Protocol != p.protocol || s.Port != p.number || !inTheWay(s.Address, own, p.loopback) || theirs(f, p.unit, s) {
				continue
			}
			j.fail("another program listens where "+p.unit+" has to: end it, or let it listen elsewhere", "%s of %s is in use by %s", at(s), p.unit, who(s))
			break
		}
	}
}

// inTheWay reports whether a socket at an address keeps another from listening at
// the machine's own, or at the loopback's.
func inTheWay(a, own netip.Addr, loopback bool) bool {
	return a.IsUnspecified() || a.IsLoopback() || !loopback && a.Unmap() == own
}

// theirs reports whether a socket is a unit's own, from an installation before.
func theirs(f facts.Facts, unit string, s facts.Socket) bool {
	u, there := f.Units[unit]
	switch {
	case there && (u.State == "active" || u.State == "activating"): // perhaps by a process of its own
		return true
	case there && u.PID > 0 && slices.Contains(s.PIDs, u.PID):
		return true
	}
	return s.Program == "" && ours(f) // a kernel's, as that of a VXLAN device
}

func at(s facts.Socket) string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(s.Address, uint16(s.Port)), s.Protocol)
}

func who(s facts.Socket) string {
	switch {
	case s.Program == "" && s.Protocol == "udp":
		return "the kernel, as by a VXLAN device, or an unknown program"
	case s.Program == "":
		return "an unknown program"
	case len(s.PIDs) > 0:
		return fmt.Sprintf("%s, process %d", s.Program, s.PIDs[0])
	}
	return s.Program
}

// devices of pod networks, by the beginning of their names: what they are of.
var devices = []struct{ prefix, of string }{
	{"flannel", "flannel"}, {"cni0", "a bridge plugin"}, {"cbr0", "kubenet"}, {"tunl0", "calico"}, {"vxlan.calico", "calico"}, {"cali", "calico"},
	{"cilium", "cilium"}, {"weave", "weave"}, {"kube-ipvs0", "kube-proxy"}, {"kube-bridge", "kube-router"}, {"slipway", "slipway"},
}

func checkNetworkLeftovers(j *judge, _ topology.NodeState, f facts.Facts) {
	if ours(f) {
		return
	}
	var found []string
	for _, l := range f.Links {
		for _, d := range devices {
			// A kernel with ipip gives every namespace a tunl0, which is down.
			if strings.HasPrefix(l.Name, d.prefix) && (l.Name != "tunl0" || l.Up || len(l.Addresses) > 0) {
				found = append(found, l.Name)
				break
			}
		}
	}
	if len(found) > 0 {
		j.fail("ip link delete "+found[0]+" (each), or reboot: what they lead to is no longer there", "there are devices of an older pod network: %s", strings.Join(found, ", "))
	}
	if chains := sortedKeys(f.Firewall.Chains); len(chains) > 0 {
		// kube-proxy --cleanup leaves those that kubelet makes.
		j.fail(fmt.Sprintf("for i in iptables ip6tables; do $i-save | grep -vE '%s' | $i-restore; done (those of iptables-legacy too, where it is in use), or reboot", strings.Join(chains, "|")), "there are chains of another cluster's: %s", strings.Join(chains, "*, ")+"*")
	}
	if slices.Contains(f.Firewall.Tables, "ip kube-proxy") {
		j.fail("nft delete table ip kube-proxy", "there are rules of another cluster's kube-proxy: table ip kube-proxy")
	}
	if files := below(f.Left, "/etc/cni/net.d/", "/run/flannel/", "/var/lib/cni/", "/var/lib/calico/"); len(files) > 0 {
		j.fail("move them away: a container runtime takes the first that it finds in /etc/cni/net.d", "there are files of an older pod network: %s", strings.Join(files, ", "))
	}
}

// below are the paths that begin with one of some prefixes.
func below(paths []string, prefixes ...string) (out []string) {
	for _, p := range paths {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(p, prefix) }) {
			out = append(out, p)
		}
	}
	return out
}

func running(f facts.Facts, units ...string) (out []string) {
	for _, u := range units {
		if f.Active(u) {
			out = append(out, u)
		}
	}
	return out
}

func checkOtherCluster(j *judge, _ topology.NodeState, f facts.Facts) {
	if ours(f) { // whose it is, the authorities tell (installer/cluster)
		return
	}
	if files := below(f.Left, "/etc/kubernetes/", "/var/lib/kubelet/", "/var/lib/etcd/", "/etc/rancher/"); len(files) > 0 {
		j.fail("take the machine out of that cluster first (kubeadm reset, k3s-uninstall.sh), and move away what you want to keep", "there are files of another cluster: %s", strings.Join(files, ", "))
	}
	if units := running(f, "kubelet.service", "k3s.service", "kube-apiserver.service", "etcd.service"); len(units) > 0 {
		j.fail("take the machine out of that cluster first", "services of another cluster run: %s", strings.Join(units, ", "))
	}
}

func checkOtherRuntime(j *judge, n topology.NodeState, f facts.Facts) {
	if !j.full(n) || ours(f) {
		return
	}
	if units := running(f, "docker.service", "containerd.service", "crio.service"); len(units) > 0 {
		j.warn("move its containers away first: containerd.service becomes the cluster's, and goes back to what it was by a reset", "another container runtime runs: %s", strings.Join(units, ", "))
	}
}

// packageManagers are those that the installation can use (installer.Packages).
var packageManagers = []string{"apt-get", "dnf", "yum", "zypper"}

// tools are those that the installation itself calls, and that every system has.
var tools = []string{"base64", "sha256sum", "stat", "install", "mktemp", "awk", "grep", "sed", "ip", "ss"}

// commands are what packages are for, where that is called otherwise.
var commands = map[string]string{"iptables": "iptables-restore", "nftables": "nft", "bird2": "bird"}

func checkPrograms(j *judge, n topology.NodeState, f facts.Facts) {
	var missing, packages []string
	for _, c := range tools {
		if f.Commands[c] == "" {
			missing = append(missing, c)
		}
	}
	for _, p := range cluster.Packages(j.in, n) {
		command := p.Name
		if c, ok := commands[p.Name]; ok {
			command = c
		}
		if f.Commands[command] == "" && f.Packages[p.Name] == "" && (p.RPM == "" || f.Packages[p.RPM] == "") {
			packages = append(packages, p.Name)
		}
	}
	b := j.in.Cluster.Spec.ControlPlane.LoadBalancer
	balances := b.Mode == topology.BalancerExternal && n.HasRole(topology.RoleLoadBalancer) || b.Mode == topology.BalancerNodeLocal && j.proxied(n)
	if balances && b.Software == topology.Envoy && f.Commands["envoy"] == "" {
		missing = append(missing, "envoy")
	}
	if len(missing) > 0 {
		j.fail("install what has them: coreutils, gawk, iproute2; envoy as /usr/bin/envoy", "there is no %s", strings.Join(missing, ", "))
	}
	switch {
	case len(packages) == 0:
	case slices.Contains(packageManagers, f.PackageManager):
		j.warn("nothing, if packages can be had there: the installation gets them by "+f.PackageManager, "packages are missing: %s", strings.Join(packages, ", "))
	default:
		j.fail("install them, or what they are for: there is no package manager that is known here", "packages are missing: %s", strings.Join(packages, ", "))
	}
}
