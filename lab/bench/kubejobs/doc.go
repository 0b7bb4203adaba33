// Package kubejobs runs the bench's workloads in a Kubernetes cluster of whatever
// making, as ordinary Jobs: a server's pod on one node and, round by round, clients'
// Jobs on another. It has two sides: what runs in the pods ([Serve], [Measure]), and
// what runs beside them with a kubeconfig ([Run]).
//
// It needs no privilege in the pods and no agent on the nodes; what it makes lies in
// one namespace, which it makes and removes.
package kubejobs
