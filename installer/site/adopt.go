package site

import "slipway/topology"

// Adopt takes over what nodes had been given when the cluster was kept in a
// backup, where the site knows nothing of it itself.
func (s *Site) Adopt(snap *topology.Snapshot) {
	if s.kept.Allocation != nil {
		return
	}
	_, a, err := topology.Allocate(s.Cluster, &topology.Objects{}, nil)
	if err != nil { // said where the plan is made
		return
	}
	for _, n := range snap.Nodes {
		if n.PodCIDR.IsValid() {
			a.Subnets[n.Name] = n.PodCIDR.String()
		}
		var blocks []string
		for _, b := range n.Blocks {
			blocks = append(blocks, b.String())
		}
		if len(blocks) > 0 {
			a.Blocks[n.Name] = blocks
		}
	}
	s.kept.Allocation = a
}
