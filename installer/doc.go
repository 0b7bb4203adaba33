// Package installer turns machines into a cluster and back. What it wants is
// data: a plan of steps, each with the items that some hosts need (files, units,
// settings). It compares them with what is there, changes only what differs,
// looks again, and can undo what it did and only that.
//
// It knows machines by the interface [Host] alone, a lab's node as well as one
// over SSH: what was rehearsed is what runs.
package installer
