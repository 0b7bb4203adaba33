package cluster

import (
	"fmt"

	"slipway/installer"
)

// What else looks after a machine's network has to leave alone what the agent makes:
// its devices, routes and rules.

// managers are items for those that run on a machine.
func (f Facts) managers() (out []installer.Item) {
	if f.NetworkManager {
		out = append(out, networkManager()...)
	}
	if f.Networkd {
		out = append(out, networkd)
	}
	return out
}

// unmanaged are the devices of pods and tunnels, in all modes.
const unmanaged = "interface-name:cni0;interface-name:veth*;interface-name:cali*;interface-name:flannel*;interface-name:tunl0"

const (
	managerConf   = "/etc/NetworkManager/conf.d/90-slipway.conf"
	managerReload = "if systemctl is-active -q NetworkManager.service; then systemctl reload NetworkManager.service; fi"
	managerNote   = `"$RECORDS/saved/network-manager"`
)

// networkManager keeps NetworkManager from taking pods' devices for connections of its
// own (NetworkManager.conf(5), section device; docs.tigera.io, troubleshooting,
// "Configure NetworkManager"). It reads the file when it is told to, and once more when
// the file is gone.
func networkManager() []installer.Item {
	return []installer.Item{
		installer.Action{
			Name: "NetworkManager can have its devices back", Check: "test -e " + managerNote,
			Do:   `mkdir -p "$RECORDS/saved"; : >` + managerNote,
			Back: "rm -f " + managerNote + "\n" + managerReload,
		},
		installer.File{Path: managerConf, Mode: 0o644, Content: []byte("[device-slipway]\nmatch-device=" + unmanaged + "\nmanaged=0\n")},
		installer.Action{
			Name: "NetworkManager leaves the cluster's devices alone", Check: fmt.Sprintf("cmp -s %s %s", managerConf, managerNote),
			Do: managerReload + fmt.Sprintf("\ncat %s >%s", managerConf, managerNote),
		},
	}
}

// networkd has systemd-networkd, which looks after a machine's own device, not take
// away routes and rules that others add to it (networkd.conf(5)). It reads this when
// it is started, and only then takes any away.
var networkd = installer.File{
	Path: "/etc/systemd/networkd.conf.d/90-slipway.conf", Mode: 0o644,
	Content: []byte("[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"),
}
