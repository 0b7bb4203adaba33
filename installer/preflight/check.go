package preflight

import (
	"fmt"
	"slices"
	"strings"

	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/topology"
)

// Severity is how bad a finding is.
type Severity string

// The severities. An error is what an installation would fail by, or what would
// be destroyed by it.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Finding is what a check says of a host.
type Finding struct {
	Check    string   `json:"check"`
	Host     string   `json:"host"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text,omitempty"` // what is so
	Hint     string   `json:"hint,omitempty"` // what to do
	// Ignored: it was an error, and the operator wants it to be none.
	Ignored bool `json:"ignored,omitempty"`
}

// Failed reports whether there is an error among findings.
func Failed(all []Finding) bool {
	return slices.ContainsFunc(all, func(f Finding) bool { return f.Severity == Error })
}

// UnknownCheckError says that no check has a name.
type UnknownCheckError struct{ Name string }

// Error names the checks that there are.
func (e *UnknownCheckError) Error() string {
	return fmt.Sprintf("there is no check %q: the checks are %s", e.Name, strings.Join(Names(), ", "))
}

// Description is a check as documentation has it.
type Description struct {
	Name  string
	Worst Severity
	About string
}

// Table describes all checks, in their order.
func Table() []Description {
	var out []Description
	for _, c := range checks {
		out = append(out, Description{c.name, c.worst, c.about})
	}
	return out
}

// Names are those of all checks, and of the mesh of ports.
func Names() []string {
	var out []string
	for _, c := range checks {
		out = append(out, c.name)
	}
	return append(out, Mesh)
}

// Mesh is the name by which the mesh of ports can be ignored, which looks at the
// network and not at facts (slipway/installer/mesh).
const Mesh = "mesh"

// Known returns an [UnknownCheckError] for the first name that is no check's.
func Known(names []string) error {
	all := Names()
	for _, n := range names {
		if !slices.Contains(all, n) {
			return &UnknownCheckError{n}
		}
	}
	return nil
}

// Check judges machines by their facts. A node without facts is an error's
// finding itself. Errors of checks that are to be ignored are warnings. Findings
// are in the order of the checks, then of the nodes in the file.
func Check(c *topology.Cluster, s *topology.Snapshot, all map[string]facts.Facts, ignore []string) ([]Finding, error) {
	if err := Known(ignore); err != nil {
		return nil, err
	}
	j := &judge{in: cluster.Inputs{Cluster: c, Snapshot: s}, facts: all}
	for _, n := range s.Nodes {
		if len(n.Roles) > 0 {
			j.nodes = append(j.nodes, n)
		}
	}
	for _, c := range checks {
		for _, n := range j.nodes {
			f, known := all[n.Name]
			if !known {
				if c.name == checks[0].name {
					j.found = append(j.found, Finding{Check: c.name, Host: n.Name, Severity: Error, Text: "nothing is known of it", Hint: "connect to it and look"})
				}
				continue
			}
			before := len(j.found)
			j.check, j.host = c.name, n.Name
			c.judge(j, n, f)
			if len(j.found) == before {
				j.found = append(j.found, Finding{Check: c.name, Host: n.Name, Severity: OK})
			}
		}
	}
	for i, f := range j.found {
		if f.Severity == Error && slices.Contains(ignore, f.Check) {
			j.found[i].Severity, j.found[i].Ignored = Warning, true
		}
	}
	return j.found, nil
}

// check looks at one host, among all, and says what is wrong.
type check struct {
	name  string
	worst Severity
	about string
	judge func(j *judge, n topology.NodeState, f facts.Facts)
}

// judge is one judgement on its way.
type judge struct {
	in    cluster.Inputs
	nodes []topology.NodeState
	facts map[string]facts.Facts

	check, host string
	found       []Finding
}

func (j *judge) say(s Severity, hint, format string, args ...any) {
	j.found = append(j.found, Finding{Check: j.check, Host: j.host, Severity: s, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (j *judge) fail(hint, format string, args ...any) { j.say(Error, hint, format, args...) }
func (j *judge) warn(hint, format string, args ...any) { j.say(Warning, hint, format, args...) }

// others are the hosts, but for one, of which something is known.
func (j *judge) others(n topology.NodeState) (out []topology.NodeState) {
	for _, o := range j.nodes {
		if _, known := j.facts[o.Name]; known && o.Name != n.Name {
			out = append(out, o)
		}
	}
	return out
}

// full reports whether a node runs kubelet and containers.
func (j *judge) full(n topology.NodeState) bool {
	return j.in.Cluster.Spec.Components == topology.ComponentsFull && n.InDatapath()
}

// proxied reports whether a node has kube-proxy's rules.
func (j *judge) proxied(n topology.NodeState) bool {
	return n.InDatapath() && slices.ContainsFunc(j.nodes, func(o topology.NodeState) bool { return o.HasRole(topology.RoleControlPlane) })
}

// ours reports whether an installation of ours was on the machine, which then has
// what others' would be leftovers.
func ours(f facts.Facts) bool { return len(f.Own) > 0 }

// checks are all, in the order in which they are shown.
var checks = []check{
	{"os", Error, "The distribution is one that an installation was written for: Debian 11, Ubuntu 20.04, RHEL and its relatives 8, or newer. Another is a warning, an older one an error", checkOS},
	{"kernel", Error, "Linux 4.19 or newer (kubeadm's own minimum); 5.13 for kube-proxy's nftables mode", checkKernel},
	{"architecture", Error, "The processor is one that the programs of the installation are built for", checkArchitecture},
	{"init", Error, "systemd starts services", checkInit},
	{"root", Error, "Commands run as root", checkRoot},
	{"cpu", Error, "Control planes and workers have 2 processors", checkCPU},
	{"memory", Error, "Control planes have 2 GB of memory, workers 4 GB (measured against 1.7 and 3.4 million KiB, as a machine of that size has)", checkMemory},
	{"hostname", Error, "No two machines have one host name", checkHostname},
	{"machine-id", Error, "No two machines have one /etc/machine-id, and each has one", checkMachineID},
	{"product-uuid", Error, "No two machines have one product_uuid; containers have that of the machine below, which does not count", checkProductUUID},
	{"mac", Error, "No two machines' network cards have one MAC", checkMAC},
	{"own-address", Error, "The machine has the address that the cluster file gives it; a warning where its prefix is another than the segment's", checkOwnAddress},
	{"unique-address", Error, "No machine has another's address", checkUniqueAddress},
	{"mtu", Error, "The device with the machine's address carries packets as large as the segment's MTU", checkMTU},
	{"route", Error, "There is a route to the services' addresses, as by a default route: the kernel wants one before kube-proxy's rules see a packet", checkRoute},
	{"name-servers", Warning, "Name servers are some that pods reach too, not only a resolver on the machine's own loopback that says not whom it asks: without, the cluster's DNS answers for the cluster alone", checkNameServers},
	{"time", Error, "Clocks agree: more than a second between any two machines is a warning (etcd's limit), and 4 minutes from the operator's an error (certificates are valid from 5 minutes before they are made)", checkTime},
	{"zone", Warning, "Machines show the same local time", checkZone},
	{"swap", Warning, "No swap is in use: the installation turns it off until the next boot", checkSwap},
	{"selinux", Error, "SELinux does not enforce: nobody has tried an installation under it", checkSELinux},
	{"firewall", Warning, "No firewall (ufw, firewalld, chains of iptables or nftables that drop) is in the way; the mesh of ports says what passes", checkFirewall},
	{"ports", Error, "The ports that the cluster's programs take are free, or theirs already", checkPorts},
	{"modules", Error, "The kernel has the modules that the mode, kube-proxy and containers need; a warning where that cannot be told", checkModules},
	{"sysctls", Warning, "Settings that the installation does not make are sane: NodePorts are none of the ports that programs get by chance, there are inotify instances enough", checkSysctls},
	{"disk", Error, "There is room for programs (1 GiB), etcd (2 GiB), images (2 GiB), and file systems can be written to; a warning where kubelet would evict pods for want of room", checkDisk},
	{"cgroup", Error, "There are control groups of processors, memory and processes; a warning where they are of version 1", checkCgroup},
	{"cni-leftovers", Error, "There is nothing of an older pod network: devices as flannel.1, tunl0 or cni0, chains KUBE-*, files in /etc/cni/net.d", checkNetworkLeftovers},
	{"other-cluster", Error, "The machine belongs to no other cluster, by files or by running services", checkOtherCluster},
	{"other-runtime", Warning, "No other container runtime runs there", checkOtherRuntime},
	{"programs", Error, "Programs that the installation calls are there, and so are the packages that it needs, or a package manager (apt-get, dnf, yum, zypper) to get them with", checkPrograms},
}
