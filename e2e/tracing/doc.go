// Package tracing holds the acceptance tests of `slipway trace`, driven by its
// command line in running labs: a corpus of faults, each of which the trace has
// to name, and the agreement of prediction and observation in healthy labs.
package tracing
