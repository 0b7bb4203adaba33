// Package kubeproxy holds our rules against those of upstream's own kube-proxy,
// run beside them over the same services. It has tests only.
package kubeproxy
