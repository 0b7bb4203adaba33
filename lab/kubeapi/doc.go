// Package kubeapi is the way from this machine to the API of a lab that has one:
// with the administrator's certificate, and from inside the lab's namespaces, as
// the machine's own network does not lead there.
package kubeapi
