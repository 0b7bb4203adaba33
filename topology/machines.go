package topology

// Machines are a cluster's machines and wires alone: segments, routers and nodes
// with their addresses and routes, but no pods, no leases and no services. What
// the file leaves open is decided as in a cluster without a history.
func Machines(c *Cluster) (*Snapshot, error) {
	snap := &Snapshot{Lab: c.Metadata.Name, Network: c.Spec.Network, Proxy: c.Spec.Proxy}
	snap.Network.MTU = c.PodMTU()
	addrs, _, err := underlayAddresses(c, nil)
	if err != nil {
		return nil, err
	}
	underlay(c, snap, addrs)
	return snap, nil
}
