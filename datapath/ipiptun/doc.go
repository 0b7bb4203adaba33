// Package ipiptun carries IPv4 in IPv4 (RFC 2003) in user space: a TUN on one
// side, a raw socket of protocol 4 on the other, one packet per system call. It
// is the last resort for calico's tunl0, where the kernel has neither IPIP nor
// eBPF, and writes the same bytes as they do.
package ipiptun
