package lab

import (
	"fmt"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/topology"
)

// modes registers the datapath modes: one line each.
var modes = []datapath.Mode{
	flannel.UDP{},
	flannel.VXLAN{},
	flannel.HostGW{},
	calico.BGP{},
	calico.IPIP{},
}

// modeOf finds a mode by its name in the cluster file.
func modeOf(name topology.ModeName) (datapath.Mode, error) {
	for _, m := range modes {
		if m.Name() == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no datapath mode %q", name)
}
