// Package facts learns what a machine is and has: one POSIX shell script a host,
// run once, that changes nothing, and a typed answer. What follows from it, others
// say.
package facts
