// Package pki makes, keeps and renews the certificates of a cluster: three
// authorities (Kubernetes, etcd, front proxy), a key for each use, the keys of
// service accounts, kubeconfigs and bootstrap tokens. Names and layout are
// those of kubeadm (https://kubernetes.io/docs/setup/best-practices/certificates/),
// so that what administrators know about one cluster holds for this one.
package pki
