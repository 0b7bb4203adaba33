// Package site installs a cluster on real hosts, from the machine of an operator:
// it keeps what belongs to the cluster there (authorities, what was planned and
// rehearsed, a journal), makes the plan from the cluster file and what the hosts
// are, and has [installer.Engine] carry it out.
//
// It knows hosts by [installer.Host] alone; who connects to them is somebody else.
package site
