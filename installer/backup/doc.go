// Package backup keeps what a cluster is made of in one file: the data of etcd, the
// certificates, the cluster file, the hosts' configuration. It is for its owner
// alone to read, encrypted if that is asked for, and whole or not there.
package backup
