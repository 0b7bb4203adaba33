// Package conformance runs Kubernetes' own network conformance tests, the specs
// "[sig-network] … [Conformance]" of upstream's e2e.test, against full labs: whether
// what slipway builds is a Kubernetes network by Kubernetes' own judgement.
//
// Without more it runs a few specs in one mode. `make conformance` runs all of them
// in four modes (SLIPWAY_CONFORMANCE=all).
package conformance
