// Package scenario runs lessons and drills: one text file each, with a lab, a task
// in several languages, a fault to make, checks on real packets, hints and a
// solution. What a student plays with is what `go test` runs.
package scenario
