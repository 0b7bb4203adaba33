/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parts of the kernel's own types that are looked at. Offsets are relocated
 * when the programs are loaded (CO-RE), so only names and types count here.
 */
#pragma once

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	char name[16];
	int ifindex;
	possible_net_t nd_net;
};

struct sock_common {
	unsigned short skc_family;
	possible_net_t skc_net;
};

struct sock {
	struct sock_common __sk_common;
};

struct sk_buff {
	struct sock *sk;
	struct net_device *dev;
	unsigned int len;
	unsigned int mark;
	__u8 pkt_type : 3;
	__be16 protocol;
	__u16 network_header;
	__u16 mac_header;
	__u32 tail; /* offsets from head on 64-bit machines */
	__u32 end;
	unsigned char *head;
	unsigned char *data;
};

/* behind a packet's memory, at its end */
struct skb_shared_info {
	unsigned short gso_size;
	unsigned short gso_segs;
};

struct nf_hook_state {
	__u8 hook;
	struct net_device *in;
	struct net_device *out;
	struct net *net;
};

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

#pragma clang attribute pop
