package topology

// Allocation is what must survive from one run to the next, so that addresses
// stay where they are when the file changes. It is stored with the lab's state.
type Allocation struct {
	// Subnets maps a node to its flannel lease, as "10.244.1.0/24".
	Subnets map[string]string `json:"subnets,omitempty"`
	// Blocks maps a node to its calico blocks.
	Blocks map[string][]string `json:"blocks,omitempty"`
	// Pods maps "namespace/name" to node and address.
	Pods map[string]PodAllocation `json:"pods,omitempty"`
	// ClusterIPs and NodePorts map "namespace/name" and
	// "namespace/name:port/protocol" ("namespace/name:healthcheck" for a health
	// check port) to what was given out.
	ClusterIPs map[string]string `json:"clusterIPs,omitempty"`
	NodePorts  map[string]int    `json:"nodePorts,omitempty"`
	// Addresses are those of nodes, by name, and of routers' legs, by
	// "router/segment", that are not in the file.
	Addresses map[string]string `json:"addresses,omitempty"`
}

// PodAllocation is one pod's placement and address.
type PodAllocation struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	Family  string `json:"family"` // flannel | calico
}
