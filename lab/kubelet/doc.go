// Package kubelet connects a lab with real components to its own API.
//
// In a light lab it plays the kubelets of all workers in one process: it
// registers the nodes, keeps their leases fresh, has the lab plug in the pods
// that the scheduler placed, and writes their statuses. Nothing runs in them: the
// lab answers on the ports that their containers declare. In a full lab real
// kubelets do all that, and the package only tells the lab what is there.
package kubelet
