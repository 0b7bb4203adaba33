// Package verify asks a running cluster the question that its users will ask: can
// everything reach what it should? It puts a server on each node, tries from pods,
// nodes and outside to reach each by every kind of address that Kubernetes gives,
// and takes it all away again.
//
// It needs no more of the cluster than a kubectl and one image with the echo
// program, which is server and client; where its programs run, the caller says.
package verify
