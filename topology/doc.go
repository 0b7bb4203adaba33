// Package topology holds the cluster file: how it is parsed, defaulted and
// validated with positions, how addresses are allocated and pods are placed.
//
// It is pure: it reads files and computes, and never looks at or touches the
// kernel. Two values leave it: a [Cluster], the file as its author meant it,
// and a [Snapshot], the cluster at one moment with every name, address and
// placement decided, which is all that the datapath planners are given.
package topology
