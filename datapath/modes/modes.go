// Package modes lists the datapath modes, for all who have to find one by its
// name in the cluster file.
package modes

import (
	"fmt"
	"slices"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/topology"
)

// all registers the datapath modes, a family a line.
var all = slices.Concat(
	flannel.Modes(),
	calico.Modes(),
)

// ByName finds a mode by its name in the cluster file.
func ByName(name topology.ModeName) (datapath.Mode, error) {
	for _, m := range all {
		if m.Name() == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no datapath mode %q", name)
}
