// Package rig gives tests machines to install on: supervised nodes in namespaces
// of their own on one segment, by the same first process that a lab's nodes have,
// but without a lab. The package's tests call [Main] first.
package rig
