package cluster

import (
	"slipway/installer"
	"slipway/topology"
)

// Packages that machines need of their system's own, by what they are for.
var (
	curlPackage       = installer.Package{Name: "curl", Has: "command -v curl"}
	bashPackage       = installer.Package{Name: "bash", Has: "command -v bash"}
	iptablesPackage   = installer.Package{Name: "iptables", Has: "command -v iptables-restore && command -v iptables-save"}
	conntrackPackage  = installer.Package{Name: "conntrack", RPM: "conntrack-tools", Has: "command -v conntrack", Service: "conntrackd.service"}
	nftablesPackage   = installer.Package{Name: "nftables", Has: "command -v nft", Service: "nftables.service"}
	nginxPackage      = installer.Package{Name: "nginx", Has: "test -x /usr/sbin/nginx", Service: "nginx.service"}
	nginxStream       = installer.Package{Name: "libnginx-mod-stream", RPM: "nginx-mod-stream", Has: "ls /etc/nginx/modules-enabled/*stream.conf /usr/share/nginx/modules/*stream.conf 2>/dev/null | grep . || /usr/sbin/nginx -V 2>&1 | grep -q -- '--with-stream '"}
	haproxyPackage    = installer.Package{Name: "haproxy", Has: "test -x /usr/sbin/haproxy", Service: "haproxy.service"}
	birdPackage       = installer.Package{Name: "bird2", RPM: "bird", Has: "/usr/sbin/bird --version 2>&1 | grep -q ' 2\\.'", Service: "bird.service"}
	ipsetPackage      = installer.Package{Name: "ipset", Has: "command -v ipset", Service: "ipset.service"}
	keepalivedPackage = installer.Package{Name: "keepalived", Has: "test -x /usr/sbin/keepalived", Service: "keepalived.service"}
)

// SystemPackages are, by Debian's names, all that a machine of any cluster may need
// of its system's own.
func SystemPackages() (out []string) {
	for _, x := range []installer.Package{
		bashPackage, birdPackage, conntrackPackage, curlPackage, haproxyPackage, ipsetPackage, iptablesPackage, keepalivedPackage, nftablesPackage, nginxPackage, nginxStream,
	} {
		out = append(out, x.Name)
	}
	return out
}

// packages are what a machine needs beyond what every system has.
func (p *planner) packages(n topology.NodeState) installer.Packages {
	out := installer.Packages{List: []installer.Package{curlPackage}, Versions: p.PackageVersions}
	if n.InDatapath() {
		out.List = append(out.List, iptablesPackage, conntrackPackage)
		if p.Snapshot.Proxy.Mode == topology.ProxyNFTables {
			out.List = append(out.List, nftablesPackage)
		}
	}
	if p.upstreamCalico() && n.InDatapath() {
		out.List = append(out.List, birdPackage, ipsetPackage)
	}
	if p.runsKubelet(n) {
		out.List = append(out.List, bashPackage) // the last phase asks DNS with it
	}
	if !named(p.balancers(), n.Name) {
		return out
	}
	switch p.balancer().Software {
	case topology.NGINX:
		out.List = append(out.List, nginxPackage, nginxStream)
	case topology.HAProxy:
		out.List = append(out.List, haproxyPackage)
	}
	if p.external() {
		out.List = append(out.List, keepalivedPackage)
	}
	return out
}

// modules are parts of the kernel that nodes need. Where the kernel is others' as
// well, somebody else has to see to that.
func (p *planner) modules(n topology.NodeState) (out []installer.Item) {
	for _, m := range []installer.Module{
		{Name: "br_netfilter", There: "test -e /proc/sys/net/bridge/bridge-nf-call-iptables"},
		{Name: "overlay", There: "grep -qw overlay /proc/filesystems"},
	} {
		if p.Facts[n.Name].Shared {
			out = append(out, installer.Require{Name: m.Name, Check: m.There, Hint: "the kernel is shared with other machines: load the module " + m.Name + " where it belongs to (modprobe " + m.Name + ")"})
			continue
		}
		out = append(out, m)
	}
	return out
}
