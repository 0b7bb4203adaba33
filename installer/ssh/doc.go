// Package ssh is a host over SSH: machines that are reached the way their
// operator reaches them, by ~/.ssh/config, the agent, key files and jump hosts,
// with host keys that are pinned.
//
// A host has one connection; each program is one session on it. Before a program
// runs, a marker comes: whatever the login shell prints is told apart from what
// the program says, nothing is sent to a program that does not run, and what has
// not begun may be tried again. What has begun never is.
//
// What is to be done as root is done through sudo where the user is another.
package ssh
