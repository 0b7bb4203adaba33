// Package datapath is the vocabulary of one node's kernel state, wanted and
// observed, and the [Mode] interface that computes it. Everything here is pure
// data: nothing in this package looks at a kernel. The package linux makes a
// namespace or host equal to a [NodeConfig] and reads it back.
package datapath
