// Package kube makes a lab's nodes into a real Kubernetes cluster: it gathers
// the programs, has the lab started, and lets the installer go through its
// phases, as it would on machines that are not namespaces.
package kube
