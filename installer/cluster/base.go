package cluster

import (
	"fmt"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/topology"
)

// Memory that a machine needs by its roles, in bytes: a bit less than 2 and 4 GB,
// as a machine that is sold with them has (kubeadm constants.go,
// ControlPlaneMem = 1700 MB).
const (
	ControlPlaneMemory int64 = 1_700_000 << 10
	WorkerMemory       int64 = 3_400_000 << 10
)

// preflight looks whether the machines will do, before anything is changed.
func (p *planner) preflight() (installer.Phase, error) {
	ph := installer.Phase{Title: "Can these machines become a cluster?",
		About: "Looks and changes nothing: what would fail half way through is said here, by name."}
	work, err := on(p.allNodes(), func(n topology.NodeState) ([]installer.Item, error) {
		items := []installer.Item{
			installer.Require{Name: "shell tools", Check: "for c in base64 sha256sum stat install mktemp; do command -v $c || exit 1; done", Hint: "coreutils is needed"},
			installer.Require{Name: "systemd", Check: "command -v systemctl", Hint: "services are units of systemd"},
			installer.Require{Name: "own address", Check: fmt.Sprintf("ip -o addr show | grep -qw 'inet %s'", address(n)), Hint: fmt.Sprintf("the cluster file says that %s has the address %s", n.Name, address(n))},
			installer.Require{Name: "bridge netfilter", Check: "test -e /proc/sys/net/bridge/bridge-nf-call-iptables || modprobe -n br_netfilter", Hint: "the kernel module br_netfilter is needed: without it pods of one node reach services past the rules"},
		}
		if len(p.masters) > 0 && n.InDatapath() {
			items = append(items, installer.Require{
				Name: "route to services", Check: "ip route get " + p.clusterDNS().String(),
				Hint: "a node needs a default route: before the rules of services see a packet, the kernel wants to know where it would go",
			})
		}
		if n.HasRole(topology.RoleControlPlane) {
			items = append(items, installer.Require{
				Name: "memory", Check: fmt.Sprintf("test $(sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo) -ge %d", ControlPlaneMemory>>10), Hint: "a control plane needs 2 GB of memory",
			})
		}
		return p.asked(append(items, p.balancerNeeds(n)...)), nil
	})
	if err != nil {
		return ph, err
	}
	conflicts, err := on(p.allNodes(), p.conflicts)
	ph.Steps = []installer.Step{
		{Name: "requirements", Why: "Each is a check with a name, and says what to do where it fails.", Work: work},
		{Name: "conflicts", Why: "What is on the machines already must not be taken for this cluster's, nor stand in its way.", Work: conflicts},
	}
	return ph, err
}

// Packages are what a machine needs of its system's own packages: one of the
// first steps brings them.
func Packages(in Inputs, n topology.NodeState) []installer.Package {
	return newPlanner(in).packages(n).List
}

// CheckName is the name that a requirement of the first phase has among the checks
// before an installation (slipway/installer/preflight); empty for what nobody may
// leave out.
func CheckName(requirement string) string {
	switch {
	case requirement == "memory", requirement == "own address":
		return strings.ReplaceAll(requirement, " ", "-")
	case requirement == "bridge netfilter":
		return "modules"
	case requirement == "route to services":
		return "route"
	case strings.HasPrefix(requirement, "ports of "):
		return "ports"
	case strings.HasPrefix(requirement, "authority "), requirement == "etcd's data":
		return ""
	case requirement == "systemd":
		return "init"
	default:
		return "programs"
	}
}

// asked are the requirements that are not to be left out.
func (p *planner) asked(items []installer.Item) []installer.Item {
	return slices.DeleteFunc(items, func(it installer.Item) bool {
		r, ok := it.(installer.Require)
		return ok && slices.Contains(p.Ignore, CheckName(r.Name))
	})
}

// sysctls that every node has: packets between pods are forwarded, and those
// that cross a bridge pass the rules (kubernetes.io/docs/setup/production-environment/container-runtimes).
var sysctls = []installer.Sysctl{
	{Key: "net.ipv4.ip_forward", Value: "1"},
	{Key: "net.bridge.bridge-nf-call-iptables", Value: "1"},
}

// swapOff lasts: no swap comes back with the next boot.
var swapOff = installer.Action{
	Name: "swap off", Check: "test $(wc -l </proc/swaps) -le 1", Do: "swapoff -a\nsystemctl mask swap.target", Back: "systemctl unmask swap.target\nswapon -a",
}

// base is what every machine of a cluster has.
func (p *planner) base() (installer.Phase, error) {
	ph := installer.Phase{Title: "The machines' own settings",
		About: "Names that all nodes know, no swap (kubelet plans memory and swap would undo that), forwarding, and rules for bridged packets."}
	work, err := on(p.allNodes(), func(n topology.NodeState) ([]installer.Item, error) {
		var persist, hosts strings.Builder
		for _, s := range sysctls {
			fmt.Fprintf(&persist, "%s = %s\n", s.Key, s.Value)
		}
		for _, o := range p.Snapshot.Nodes {
			fmt.Fprintf(&hosts, "%s %s\n", address(o), o.Name)
		}
		items := append(p.modules(n), settingsCanGo(), runCanGo(), rulesCanGo())
		items = append(items, p.Facts[n.Name].managers()...)
		if !p.Facts[n.Name].Shared { // else it is others' as well
			items = append(items, swapOff)
		}
		items = append(items,
			installer.Block{Path: "/etc/hosts", Name: "slipway", Content: hosts.String()},
			installer.File{Path: "/etc/modules-load.d/slipway.conf", Mode: 0o644, Content: []byte("br_netfilter\noverlay\n")},
			installer.File{Path: "/etc/sysctl.d/90-slipway.conf", Mode: 0o644, Content: []byte(persist.String())},
		)
		for _, s := range sysctls {
			items = append(items, s)
		}
		return items, nil
	})
	if err != nil {
		return ph, err
	}
	packages, err := on(p.allNodes(), func(n topology.NodeState) ([]installer.Item, error) { return []installer.Item{p.packages(n)}, nil })
	ph.Steps = []installer.Step{{Name: "packages", Why: "Programs that the system's own packages have, for rules, connections and health. What is there stays as it is.", Work: packages}, {Name: "settings", Why: "Written to files, so that they outlive a reboot, and set now.", Work: work}}
	return ph, err
}
