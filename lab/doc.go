// Package lab is the life of a lab on one box: it turns a topology.Snapshot
// into namespaces, an underlay, pods and a daemon, keeps a journal of what it
// does to the machine, repairs what has gone astray and takes everything down
// again. The root namespace's network is never touched.
package lab
