package facts

import (
	_ "embed"
	"fmt"
	"strings"
)

//go:embed script.sh
var body string

// What is asked for by name.
var (
	// Modules are those of the datapaths, of kube-proxy and of containers.
	modules = []string{"br_netfilter", "overlay", "vxlan", "ipip", "tun", "nf_conntrack", "ip_tables", "iptable_nat", "nf_tables", "ip_vs"}
	sysctls = []string{
		"net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "net.ipv4.conf.all.rp_filter", "net.ipv4.ip_nonlocal_bind",
		"net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.netfilter.nf_conntrack_max", "fs.inotify.max_user_instances", "fs.inotify.max_user_watches", "vm.overcommit_memory",
		"kernel.panic", "kernel.pid_max",
	}
	packages = []string{"iptables", "iptables-nft", "nftables", "ipset", "bird2", "bird", "conntrack", "conntrack-tools", "curl", "bash", "iproute2", "iproute", "coreutils", "kmod", "socat", "ethtool", "util-linux",
		"nginx", "libnginx-mod-stream", "nginx-mod-stream", "haproxy", "keepalived", "containerd", "docker.io", "docker-ce", "containerd.io", "runc", "cri-o", "kubelet", "systemd"}
	commands = []string{"base64", "sha256sum", "stat", "install", "mktemp", "curl", "systemctl", "iptables-restore", "nft", "ipset", "bird", "conntrack", "ip", "ss", "awk", "grep", "sed", "modprobe", "bash", "nginx", "haproxy", "envoy", "keepalived", "containerd", "docker", "crio", "kubelet", "sudo"}
	units    = []string{
		"etcd.service", "kube-apiserver.service", "kube-controller-manager.service", "kube-scheduler.service", "kube-proxy.service", "kubelet.service",
		"api-balancer.service", "api-vip.service", "containerd.service", "slipway-agent.service", "flanneld.service", "calico-bird.service", "docker.service", "crio.service", "k3s.service",
		"NetworkManager.service", "systemd-networkd.service",
	}
	// resolvers are resolv.conf(5) and, where that leads to a server on the machine
	// itself, what that asks (systemd-resolved.service(8), NetworkManager.conf(5)).
	resolvers = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"}
	// directories are those that an installation writes to, and its programs.
	directories = []string{"/", "/etc", "/opt/slipway", "/usr/local/bin", "/var/lib", "/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet", "/var/log", "/run", "/tmp"}
	// leftovers are files, and directories with what is in them.
	leftovers = []string{"/etc/cni/net.d", "/run/flannel/subnet.env", "/var/lib/cni/networks", "/etc/kubernetes/manifests", "/etc/kubernetes/admin.conf", "/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml", "/var/lib/etcd/member", "/var/lib/calico", "/etc/rancher"}
	// own are marks of ours (installer's prelude.sh, installer/cluster).
	own = []string{"/var/lib/slipway/undo", "/etc/kubernetes/slipway/etcd-cluster", "/etc/slipway/cluster.yaml"}
)

// sysctlPaths are below /proc/sys.
func sysctlPaths() (out []string) {
	for _, s := range sysctls {
		out = append(out, strings.ReplaceAll(s, ".", "/"))
	}
	return out
}

// script is all that runs on a host.
func script() string {
	var b strings.Builder
	for _, l := range []struct {
		name   string
		values []string
	}{
		{"MODULES", modules}, {"SYSCTLS", sysctlPaths()}, {"PACKAGES", packages}, {"COMMANDS", commands}, {"UNITS", units},
		{"DIRECTORIES", directories}, {"LEFTOVERS", leftovers}, {"OWN", own}, {"RESOLVERS", resolvers},
	} {
		fmt.Fprintf(&b, "%s='%s'\n", l.name, strings.Join(l.values, " "))
	}
	return b.String() + body
}
