//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// IPIP (RFC 2003) for kernels without the ipip module. encap runs on the egress
// of tunl0, a TUN that nobody reads; decap runs on the ingress of the underlay
// device and hands the inner packet to tunl0 as if it had been received there.
//
// Only __sk_buff and the packet are looked at, so the object needs no kernel
// type and no relocation: it loads on every kernel from 5.15 on. For that
// reason it uses neither BPF_F_ADJ_ROOM_DECAP_L3_IPV4 nor
// BPF_FIB_LOOKUP_SKIP_NEIGH, which came with 6.3.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

// Set before loading.
volatile const __be32 local_ip;	      // source of what we send, destination of what we take
volatile const __u32 tunnel_ifindex;  // tunl0
volatile const __u32 underlay_ifindex; // eth0

#define AF_INET 2
#define IP_DF 0x4000	  // include/net/ip.h
#define IP_FRAGMENT 0x3fff // more fragments, or an offset
#define ECN_MASK 3	  // RFC 3168: the two low bits of the TOS octet
#define ECN_CE 3
#define ECN_ECT_0 2
#define EALREADY 114

// The order of counters is that of type Counters in ipip.go.
enum counter {
	ENCAP_PACKETS,
	ENCAP_BYTES, // of inner packets
	DECAP_PACKETS,
	DECAP_BYTES,
	NO_NEXT_HOP, // no route through tunl0 with a gateway
	NOT_IPV4,    // sent to tunl0, or found inside IPIP
	BAD_LENGTH,  // inner packet does not fit the outer one
	FAILED,	     // the kernel refused to change the packet
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} ipip_counters SEC(".maps");

static __always_inline void count(__u32 which, __u64 n)
{
	__u64 *v = bpf_map_lookup_elem(&ipip_counters, &which);
	if (v)
		*v += n;
}

static __always_inline int drop(__u32 why)
{
	count(why, 1);
	return TC_ACT_SHOT;
}

// next_hop asks the FIB for the gateway of the route through tunl0; 0 if none.
static __always_inline __be32 next_hop(struct __sk_buff *skb, __be32 dst)
{
	struct bpf_fib_lookup fib = {
		.family = AF_INET,
		.ifindex = tunnel_ifindex,
		.ipv4_dst = dst,
	};
	long rc = bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_OUTPUT);
	// tunl0 has no neighbours to find: the gateway is what we are after.
	if (rc != BPF_FIB_LKUP_RET_SUCCESS && rc != BPF_FIB_LKUP_RET_NO_NEIGH)
		return 0;
	return fib.ipv4_dst == dst ? 0 : fib.ipv4_dst;
}

// outer_header fills in what the kernel's tunl0 writes (net/ipv4/ip_tunnel.c,
// ip_tunnel_xmit, with "ttl inherit tos 0"): TTL and DF are the inner packet's,
// of TOS only the ECN bits are (RFC 6040, compatibility with CE).
static __always_inline void outer_header(struct iphdr *o, const struct iphdr *in,
					 __u32 inner_len, __be32 dst)
{
	__u32 total = inner_len + sizeof(*o);
	__u8 ecn = in->tos & ECN_MASK;

	__builtin_memset(o, 0, sizeof(*o));
	o->version = 4;
	o->ihl = sizeof(*o) / 4;
	o->tos = ecn == ECN_CE ? ECN_ECT_0 : ecn;
	// Segmentation writes the real length into each segment.
	o->tot_len = total > 0xffff ? 0 : bpf_htons(total);
	o->id = bpf_get_prandom_u32();
	o->frag_off = in->frag_off & bpf_htons(IP_DF);
	o->ttl = in->ttl;
	o->protocol = IPPROTO_IPIP;
	o->saddr = local_ip;
	o->daddr = dst;
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)o, sizeof(*o), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	o->check = ~sum;
}

// make_room opens 20 bytes in front of the inner packet.
static __always_inline long make_room(struct __sk_buff *skb)
{
	long rc = bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
				      BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO);
	// A packet that decap took out of a tunnel and that is forwarded into
	// another still carries the first one's marks, and they fit: the inner
	// header is where it was.
	if (rc == -EALREADY)
		rc = bpf_skb_adjust_room(skb, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
					 BPF_F_ADJ_ROOM_FIXED_GSO);
	return rc;
}

SEC("tc")
int ipip_encap(struct __sk_buff *skb)
{
	struct iphdr in, outer;
	struct ethhdr eth = { .h_proto = bpf_htons(ETH_P_IP) };
	__u32 inner_len = skb->len;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, 0, &in, sizeof(in)))
		return drop(NOT_IPV4);
	__be32 gw = next_hop(skb, in.daddr);
	if (!gw)
		return drop(NO_NEXT_HOP);
	outer_header(&outer, &in, inner_len, gw);
	if (make_room(skb) || bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), 0))
		return drop(FAILED);
	// A TUN's packets have no link layer header; bpf_redirect_neigh wants one
	// to take off (net/core/filter.c, __bpf_redirect_neigh).
	if (bpf_skb_change_head(skb, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return drop(FAILED);
	count(ENCAP_PACKETS, 1);
	count(ENCAP_BYTES, inner_len);
	return bpf_redirect_neigh(underlay_ifindex, NULL, 0, 0);
}

// is_ours says whether decap is to take the packet. All others go on to the
// stack: it reassembles, or answers that it does not know the protocol.
static __always_inline int is_ours(const struct iphdr *o)
{
	return o->version == 4 && o->ihl == sizeof(*o) / 4 && o->protocol == IPPROTO_IPIP &&
	       o->daddr == local_ip && !(o->frag_off & bpf_htons(IP_FRAGMENT));
}

SEC("tc")
int ipip_decap(struct __sk_buff *skb)
{
	struct iphdr outer, in;

	// A flooded frame for another MAC is another host's packet: the stack drops
	// it before IP (net/ipv4/ip_input.c, ip_rcv_core), and so must the tunnel.
	if (skb->pkt_type != PACKET_HOST || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &outer, sizeof(outer)) || !is_ours(&outer))
		return TC_ACT_UNSPEC;
	// What a short frame was padded with is not part of the packet.
	__u32 inner_len = skb->len - ETH_HLEN - sizeof(outer);
	__u32 outer_len = bpf_ntohs(outer.tot_len);
	if (outer_len) { // 0: longer than 64 KiB, to be segmented
		if (outer_len < 2 * sizeof(outer) || outer_len - sizeof(outer) > inner_len)
			return drop(BAD_LENGTH);
		inner_len = outer_len - sizeof(outer);
	}
	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(outer), &in, sizeof(in)))
		return drop(BAD_LENGTH);
	if (in.version != 4)
		return drop(NOT_IPV4);
	if (in.ihl < sizeof(in) / 4 || bpf_ntohs(in.tot_len) > inner_len)
		return drop(BAD_LENGTH);
	if (bpf_skb_adjust_room(skb, -(int)sizeof(outer), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return drop(FAILED);
	// RFC 6040: congestion seen on the way is handed on, or the packet lost.
	if ((outer.tos & ECN_MASK) == ECN_CE && !bpf_skb_ecn_set_ce(skb))
		return drop(FAILED);
	count(DECAP_PACKETS, 1);
	count(DECAP_BYTES, inner_len);
	return bpf_redirect(tunnel_ifindex, BPF_F_INGRESS);
}
