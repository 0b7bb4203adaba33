// Package demo is Slipway's main job in one go: the demo cluster as a lab in
// each of the five modes side by side, one packet followed device by device
// from pod to pod and from pod to service, and a short bench whose rounds are
// interleaved over the modes. Everything it shows was sent for real.
package demo
