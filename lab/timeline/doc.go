// Package timeline watches a lab change: what its API says and what its nodes'
// kernels are told, in one sequence.
package timeline
