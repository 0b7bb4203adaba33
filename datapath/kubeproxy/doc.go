// Package kubeproxy renders the iptables rules that kube-proxy v1.36 writes on
// a node (upstream pkg/proxy/iptables/proxier.go), and reads iptables-save.
//
// [Render] gives kube-proxy's own iptables-restore input, byte for byte.
// kube-proxy visits its service ports in the random order of a Go map; here they
// come in the snapshot's order, so that equal snapshots render equally. [Plan]
// gives the same rules as iptables-save prints them once they are loaded, which
// is what a kernel can be compared with.
//
// The package is pure: it computes texts and never runs anything.
package kubeproxy
