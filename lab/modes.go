package lab

import (
	"fmt"
	"slices"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/topology"
)

// modes registers the datapath modes, a family a line.
var modes = slices.Concat(
	flannel.Modes(),
	calico.Modes(),
)

// modeOf finds a mode by its name in the cluster file.
func modeOf(name topology.ModeName) (datapath.Mode, error) {
	for _, m := range modes {
		if m.Name() == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no datapath mode %q", name)
}
