package cluster

import (
	"fmt"

	"slipway/installer"
	"slipway/topology"
)

const kubeletData = "/var/lib/kubelet"

// pluginDir is where kubelet and the controller manager look for plugins of
// volumes. They make it when they start, by default below /usr, which may be
// read-only, and which a lab's nodes share with the machine.
var pluginDir = installer.Directory{Path: "/var/lib/kubernetes/volume-plugins", Mode: 0o755, Data: true}

// kubelet is kubelet on a node, and how it gets to be one.
func (p *planner) kubelet(n topology.NodeState) ([]installer.Item, error) {
	program, err := p.program("kubelet", "kubernetes")
	if err != nil {
		return nil, err
	}
	facts := p.Facts[n.Name]
	values := map[string]any{
		"Name": n.Name, "Address": address(n), "Etc": etcDir, "PKI": pkiDir, "Data": kubeletData, "Domain": Domain, "DNS": p.clusterDNS(),
		"Shared": facts.Shared, "CgroupV1": facts.CgroupV1, "CgroupRoot": facts.CgroupRoot, "SystemdCgroup": facts.systemdCgroups(),
		"Plugins": pluginDir.Path, "ResolvConf": facts.resolvConf(),
	}
	text, err := render("kubelet.yaml", values)
	if err != nil {
		return nil, err
	}
	config := installer.File{Path: etcDir + "/kubelet.yaml", Mode: 0o644, Content: text}
	unit, err := service("kubelet.service", values, append(p.files(n, "ca.crt", "kubelet."), program, config)...)
	var items []installer.Item
	if !n.HasRole(topology.RoleControlPlane) { // masters have it for the controller manager
		items = append(items, pluginDir)
	}
	return append(items,
		installer.Directory{Path: kubeletData, Mode: 0o700, Data: true},
		emptied(kubeletData),
		installer.Directory{Path: "/var/log/pods", Mode: 0o750, Data: true},
		installer.Directory{Path: "/var/log/containers", Mode: 0o755, Data: true},
		kubeletMounts, program, config, p.ownIdentity(), unit,
	), err
}

// kubeletMounts are volumes of pods: they have to go before the directory can.
var kubeletMounts = installer.Action{
	Name:  "kubelet's mounts can go",
	Check: "test -x " + binDir + "/kubelet",
	Do:    ":",
	Back:  fmt.Sprintf(`sed -n 's#^[^ ]* \(%s/pods/[^ ]*\) .*#\1#p' /proc/mounts | sort -r | while read -r m; do umount "$m" || true; done`, kubeletData),
}

// ownIdentity keeps the kubeconfig that kubelet wrote itself when it got its
// certificate at the API's address of today. Undone, it goes.
func (p *planner) ownIdentity() installer.Action {
	conf, server := etcDir+"/kubelet.conf", Endpoint(p.Inputs)
	return installer.Action{
		Name:  "kubelet's own kubeconfig leads to the API",
		Check: fmt.Sprintf("test -x %s/kubelet && { ! test -e %s || grep -q 'server: %s$' %s; }", binDir, conf, server, conf),
		Do:    fmt.Sprintf("if [ -e %[1]s ]; then sed -i 's#server: .*#server: %[2]s#' %[1]s; systemctl try-restart kubelet.service; fi", conf, server),
		Back:  "rm -f " + conf,
	}
}
