package cluster

import (
	"encoding/json"
	"fmt"
	"time"

	"slipway/installer"
	"slipway/topology"
)

const (
	flanneldUnit = "flanneld.service"
	flannelConf  = "/etc/kube-flannel/net-conf.json" // where flannel's own manifests have it
	subnetFile   = "/run/flannel/subnet.env"
)

// flannel is upstream's agent. It keeps leases in Node objects, like ours.
func (p *planner) flannel(n topology.NodeState) ([]installer.Item, error) {
	program, err := p.program("flanneld", "flanneld")
	if err != nil {
		return nil, err
	}
	items := []installer.Item{program}
	plugins, err := p.plugins("bridge", "host-local", "loopback", "portmap")
	if err != nil {
		return nil, err
	}
	items = append(items, plugins...)
	backend, err := json.Marshal(p.flannelBackend())
	if err != nil {
		return nil, err
	}
	values := map[string]any{
		"Name": n.Name, "Address": address(n), "Etc": etcDir, "Config": flannelConf, "PodCIDR": p.Snapshot.Network.PodCIDR, "Backend": string(backend),
	}
	text, err := render("net-conf.json", values)
	if err != nil {
		return nil, err
	}
	config := installer.File{Path: flannelConf, Mode: 0o644, Content: text}
	unit, err := service(flanneldUnit, values, program, config, installer.File{Path: etcDir + "/agent.conf"})
	return append(items, config, flannelDevices, unit), err
}

// flannelBackend is the mode as flannel's configuration has it (flannel
// Documentation/backends.md).
func (p *planner) flannelBackend() map[string]any {
	net := p.Snapshot.Network
	switch net.Mode {
	case topology.FlannelUDP:
		return map[string]any{"Type": "udp", "Port": net.UDP.Port}
	case topology.FlannelHostGW:
		return map[string]any{"Type": "host-gw"}
	default:
		return map[string]any{"Type": "vxlan", "VNI": net.VXLAN.VNI, "Port": net.VXLAN.Port, "DirectRouting": net.VXLAN.DirectRouting}
	}
}

// flannelDevices stay when flanneld ends.
var flannelDevices = installer.Action{
	Name:  "flannel's devices can go",
	Check: "test -x " + binDir + "/flanneld",
	Do:    ":",
	Back:  "for d in flannel.1 flannel0 cni0; do ip link delete $d 2>/dev/null || true; done; rm -rf /run/flannel",
}

// flannelPlugin is the runtime's configuration, which has to wait for flanneld.
func (p *planner) flannelPlugin(n topology.NodeState) ([]installer.Item, error) {
	text, err := render("10-flannel.conflist", map[string]any{"PodCIDR": n.PodCIDR, "Network": p.Snapshot.Network.PodCIDR, "MTU": int(p.Snapshot.Network.MTU)})
	return []installer.Item{
		installer.Wait{Name: "flanneld has a lease", Check: fmt.Sprintf("test -s %s || { echo 'no %s: journalctl -u %s'; exit 1; }", subnetFile, subnetFile, flanneldUnit), Until: time.Minute},
		installer.File{Path: cniConf + "/10-flannel.conflist", Mode: 0o644, Content: text},
	}, err
}
