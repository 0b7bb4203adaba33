package lab

import (
	"slices"

	"slipway/datapath"
	"slipway/topology"
)

// learntNeighborLimit is what a lab may leave to ARP. The kernel drops packets
// once ARP has learnt net.ipv4.neigh.default.gc_thresh3 (1024) neighbours in all
// namespaces of the machine together (net/core/neighbour.c, neigh_alloc); the
// sysctl is the root namespace's, which a lab does not touch. Half of it leaves
// room for other labs and for the machine itself.
const learntNeighborLimit = 512

// crowded reports whether ARP could learn more than the limit: every machine
// every other one, and each pod and its node each other.
func crowded(s *topology.Snapshot) bool {
	machines := len(s.Nodes) + len(s.Routers) + 1
	return machines*(machines-1)+2*len(s.Pods) > learntNeighborLimit
}

// knowNeighbors gives a crowded lab's nodes and pods permanent entries, which do
// not count, for what ARP would learn.
func knowNeighbors(s *topology.Snapshot, configs []datapath.NodeConfig) error {
	machines, err := machinesOf(s)
	if err != nil {
		return err
	}
	for i := range configs {
		cfg := &configs[i]
		node, ok := s.NodeByName(cfg.Node)
		if !ok {
			continue
		}
		for _, m := range machines {
			for _, leg := range m.legs {
				if m.name != cfg.Node && leg.Segment == node.Segment {
					cfg.Neighbors = append(cfg.Neighbors, datapath.Neighbor{Dev: node.Interface.Name, Address: leg.Prefix.Addr(), MAC: leg.MAC})
				}
			}
		}
		for j := range cfg.PodPorts {
			p := &cfg.PodPorts[j]
			p.GatewayMAC = p.HostMAC
			if b := slices.IndexFunc(cfg.Links, func(l datapath.Link) bool { return l.Name == p.Bridge }); b >= 0 {
				p.GatewayMAC = cfg.Links[b].MAC
			}
		}
	}
	return nil
}
