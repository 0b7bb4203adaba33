// Package interop holds tests of our datapaths and agent and the real flanneld in one
// network: a node of ours and a node of its, each knowing the other by its
// lease. flanneld and etcd are built from source by the catalogue of components.
package interop
