// Package realproxy runs upstream's own kube-proxy in a network namespace, fed
// with the services and endpoints of a snapshot by an API server that knows
// nothing but lists and watches: what it then writes, and how long it takes, is
// what datapath/kubeproxy is held against.
package realproxy
