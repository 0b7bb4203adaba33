// Package mesh tries the ports between the machines of a cluster that is to be:
// which pairs there have to be follows from the cluster file ([Wanted]); temporary
// listeners stand on all machines, and every pair is tried at once ([Try]). What
// runs on a machine is this program, by [Main].
package mesh
