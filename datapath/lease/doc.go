// Package lease knows the registries in which the nodes of a network find each
// other: the Node objects of a Kubernetes API, with the annotations that flannel
// writes there, and an etcd with flannel's layout of keys. Either way a node with
// the real flanneld and a node with Slipway's agent read each other's leases.
package lease
