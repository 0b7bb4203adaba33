// Package daemon is slipwayd, the one process a lab has: it holds what needs a
// process and nothing else. UDP tunnels and IPIP relays of all nodes, delay
// relays of the underlay, the pods' echo servers and the cluster DNS run in it;
// each BGP speaker is a child process, as a real node has its own. Kernel state
// does not depend on it: when it dies, `slipway up` starts another, which takes
// up the same [Desired] state.
package daemon
