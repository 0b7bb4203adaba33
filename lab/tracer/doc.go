// Package tracer makes a trace of a running lab: it finds out what the ends are,
// predicts the packet's way from the state of the namespaces on it, sends the
// packet and watches it, compares the two, and can keep all of it as a bundle
// that is rendered anywhere.
package tracer
