// Package initd is the first process of a lab's node that runs real components:
// it gives the node a file system, a host name and processes of its own, runs
// systemd's units there as systemd would, and lets the lab run commands in it.
// What would change the whole machine (modules, the clock, settings that are no
// namespace's) is taken from the node's processes, or shown to them as files.
package initd
