// Package clusterdns is the lab's cluster DNS: it answers for cluster.local and
// the reverse zone as CoreDNS's kubernetes plugin does with "pods insecure",
// which is the usual configuration, following the Kubernetes DNS specification
// 1.1.0 (kubernetes/dns docs/specification.md). Names of anything else do not
// exist: a lab has no internet.
package clusterdns
