package skbtrace

// The Debian and Ubuntu packages clang, llvm and libbpf-dev generate; the two
// directories are where they keep asm/types.h. Version 3 of the instruction set
// is every kernel's that has netfilter programs.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -type event -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" skbtrace skbtrace.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -type kind -cflags "-O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" drops drops.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -DTRACEPOINTS_ONLY -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" tracepoints skbtrace.c
