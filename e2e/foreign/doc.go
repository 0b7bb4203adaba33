// Package foreign tests what Slipway does with clusters that it did not make: kubeadm
// makes one on machines of [hosts], from upstream's programs.
package foreign
