// Package bpf runs what Slipway does with eBPF programs on the datapath: IPIP
// for kernels without the ipip module, and random loss for those without netem.
//
// The programs sit in clsact filters and are held by them alone: nothing is
// pinned, nothing needs to stay open, and they end with their namespace. Each
// filter carries a name that begins with [FilterPrefix]; filters of others on
// the same devices are left alone, and see every packet that ours let pass.
package bpf

// The Debian and Ubuntu packages clang, llvm and libbpf-dev generate; the two
// directories are where they keep asm/types.h.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" ipip ipip.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" loss loss.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" udp udp.c
