package kube

import (
	"slipway/installer/cluster"
	"slipway/lab"
)

// facts are what the installer has to know of a lab's nodes.
func facts(st *lab.State) (map[string]cluster.Facts, error) {
	out := map[string]cluster.Facts{}
	for _, n := range st.Snapshot.Nodes {
		group, v1, err := lab.OpenMachine(st.Lab, n.Name).CgroupRoot()
		if err != nil {
			return nil, err
		}
		out[n.Name] = cluster.Facts{Shared: true, Lab: true, CgroupV1: v1, CgroupRoot: group}
	}
	return out, nil
}
