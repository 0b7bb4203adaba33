//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Random loss for kernels without netem.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

// Of 2^32 packets so many are lost. Set before loading.
volatile const __u64 loss_threshold;

SEC("tc")
int lose(struct __sk_buff *skb)
{
	return bpf_get_prandom_u32() < loss_threshold ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}
