//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Counts packets that are dropped, by network namespace and reason. It runs for
// dropped packets only, so that a path without loss does not have it at all.
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define MAX_COUNTS 4096
#define FIRST_INODE 0xF0000000 // of a namespace: PROC_DYNAMIC_FIRST, fs/proc/generic.c
#define AF_INET 2 // include/linux/socket.h
#define AF_INET6 10
#define MAX_SEGMENTS 65535     // GSO_MAX_SEGS, include/linux/netdevice.h

struct kind {
	__u32 inode, reason;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_COUNTS);
	__type(key, struct kind);
	__type(value, __u64);
} counts SEC(".maps");

__u64 uncounted; // packets for which the map had no room

// inode returns the namespace's that the packet is in, 0 if it is not known. A
// packet in a socket's queue may have lost its device, whose field then holds
// something else (UDP: dev_scratch). What sockets of other families drop is no
// packet: netlink's messages are such buffers, too.
static __always_inline __u32 inode(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	const struct sock *sk = skb->sk;
	__u32 found = 0;

	if (dev)
		found = dev->nd_net.net->ns.inum;
	if (found >= FIRST_INODE)
		return found;
	found = 0;
	if (sk && (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6))
		found = sk->__sk_common.skc_net.net->ns.inum;
	return found >= FIRST_INODE ? found : 0;
}

// packets is how many a buffer stands for: as many as it would be cut into.
static __always_inline __u64 packets(const struct sk_buff *skb)
{
	const struct skb_shared_info *info = (const void *)((__u64)skb->head + skb->end);
	__u32 n = BPF_CORE_READ(info, gso_segs);

	return BPF_CORE_READ(info, gso_size) && n > 1 && n <= MAX_SEGMENTS ? n : 1;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_drop, struct sk_buff *skb, void *location, __u32 reason)
{
	struct kind key = {.inode = inode(skb), .reason = reason};
	__u64 n, *count;

	if (!key.inode)
		return 0;
	n = packets(skb);
	count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		*count += n;
	else if (bpf_map_update_elem(&counts, &key, &n, BPF_NOEXIST))
		__sync_fetch_and_add(&uncounted, n);
	return 0;
}
