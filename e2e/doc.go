// Package e2e holds the acceptance tests of the lab, as its users would notice
// them: the real binary is built and driven by its command line, and real
// packets are sent in the labs that it makes. Labs live in a state directory of
// the test's own, under names of its own, so that nobody else's are disturbed.
package e2e
