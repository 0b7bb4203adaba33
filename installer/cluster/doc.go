// Package cluster says what makes machines into a Kubernetes cluster: the phases
// of an installation, as plans for slipway/installer. It is pure but for reading
// the certificates' store; everything that depends on a machine is looked up
// there by the items themselves.
package cluster
