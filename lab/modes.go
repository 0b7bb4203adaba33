package lab

import (
	"slipway/datapath"
	"slipway/datapath/modes"
	"slipway/topology"
)

// modeOf finds a mode by its name in the cluster file.
func modeOf(name topology.ModeName) (datapath.Mode, error) { return modes.ByName(name) }
