package cluster

import (
	"fmt"
	"strings"

	"slipway/installer"
	"slipway/topology"
)

// preflight looks whether the machines will do, before anything is changed.
func (p *planner) preflight() (installer.Phase, error) {
	ph := installer.Phase{Title: "Can these machines become a cluster?",
		About: "Looks and changes nothing: what would fail half way through is said here, by name."}
	work, err := on(p.allNodes(), func(n topology.NodeState) ([]installer.Item, error) {
		items := []installer.Item{
			installer.Require{Name: "shell tools", Check: "for c in base64 sha256sum stat install mktemp; do command -v $c || exit 1; done", Hint: "coreutils is needed"},
			installer.Require{Name: "systemd", Check: "command -v systemctl", Hint: "services are units of systemd"},
			installer.Require{Name: "iptables", Check: "command -v iptables-restore && command -v conntrack", Hint: "install the packages iptables and conntrack: kube-proxy writes its rules with them"},
			installer.Require{Name: "own address", Check: fmt.Sprintf("ip -o addr show | grep -qw 'inet %s'", address(n)), Hint: fmt.Sprintf("the cluster file says that %s has the address %s", n.Name, address(n))},
			installer.Require{Name: "bridge netfilter", Check: "test -e /proc/sys/net/bridge/bridge-nf-call-iptables || modprobe br_netfilter", Hint: "the kernel module br_netfilter is needed: without it pods of one node reach services past the rules"},
		}
		if n.HasRole(topology.RoleControlPlane) {
			items = append(items, installer.Require{Name: "memory", Check: "test $(sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo) -ge 1700000", Hint: "a control plane needs 2 GB of memory"})
		}
		return items, nil
	})
	ph.Steps = []installer.Step{{Name: "requirements", Why: "Each is a check with a name, and says what to do where it fails.", Work: work}}
	return ph, err
}

// sysctls that every node has: packets between pods are forwarded, and those
// that cross a bridge pass the rules (kubernetes.io/docs/setup/production-environment/container-runtimes).
var sysctls = []installer.Sysctl{
	{Key: "net.ipv4.ip_forward", Value: "1"},
	{Key: "net.bridge.bridge-nf-call-iptables", Value: "1"},
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
		items := []installer.Item{
			installer.Action{Name: "swap off", Check: "test $(wc -l </proc/swaps) -le 1", Do: "swapoff -a", Back: "swapon -a"},
			installer.Block{Path: "/etc/hosts", Name: "slipway", Content: hosts.String()},
			installer.File{Path: "/etc/modules-load.d/slipway.conf", Mode: 0o644, Content: []byte("br_netfilter\noverlay\n")},
			installer.File{Path: "/etc/sysctl.d/90-slipway.conf", Mode: 0o644, Content: []byte(persist.String())},
		}
		for _, s := range sysctls {
			items = append(items, s)
		}
		return items, nil
	})
	ph.Steps = []installer.Step{{Name: "settings", Why: "Written to files, so that they outlive a reboot, and set now.", Work: work}}
	return ph, err
}
