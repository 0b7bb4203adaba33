// Package agent keeps one node of a cluster in its network, as flanneld or
// calico-node do: it makes the node known in a registry (package lease), follows
// the other nodes, and makes the kernel of its own network namespace equal to
// what the datapath mode plans. It runs what is not kernel state, the UDP tunnel
// and the BGP speaker, and tells the container runtime how to plug pods in.
//
// The kernel's state stays when the agent ends, so that pods go on; the next
// agent takes it over.
package agent
