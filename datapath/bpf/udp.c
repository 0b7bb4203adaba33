//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// flannel's UDP backend without a process: bare IPv4 packets in UDP datagrams.
// encap runs on the egress of flannel0, a VXLAN-GPE device without remotes; decap
// runs on the ingress of the underlay device. It only makes the datagram one that
// flannel0's driver knows, by putting a VXLAN-GPE header behind the UDP header:
// then the driver takes the packet out, and with the outer header the marks that
// segmentation offload had made for it. A program that took the headers off
// itself could not clear those, and a bridge behind it would segment in software.
//
// As ipip.c does, this looks only at __sk_buff and the packet, with helpers of 5.15.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

// Set before loading.
volatile const __be32 local_ip;	       // source of what we send, destination of what we take
volatile const __be16 local_port;
volatile const __u32 tunnel_ifindex;   // flannel0
volatile const __u32 underlay_ifindex; // eth0

#define IP_DF 0x4000	   // include/net/ip.h
#define IP_FRAGMENT 0x3fff // more fragments, or an offset
#define IP_OFFSET 0x1fff
#define OUTER_TTL 64	   // IPDEFTTL, that of the datagrams of a socket
#define ANSWER_TTL 8	   // flannel pkg/backend/udp/proxy_amd64.c, send_net_unreachable
#define EALREADY 114
#define GPE_IPV4 0x0c000001 // instance and next protocol given; IPv4 (draft-ietf-nvo3-vxlan-gpe §3)

// The order of counters is that of type UDPCounters in udp.go.
enum counter {
	ENCAP_PACKETS,
	ENCAP_BYTES, // of inner packets
	DECAP_PACKETS,
	DECAP_BYTES,
	NO_LEASE,     // sent to flannel0 for a node that is not known
	UNREACHABLES, // ICMP answers to those
	TTL_EXPIRED,
	NOT_IPV4,
	BAD_LENGTH, // header and packet disagree
	TOO_LONG,   // a super-packet that with both headers is no IPv4 packet
	COALESCED,  // several datagrams in one
	FAILED,	    // the kernel refused to change the packet
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} udp_counters SEC(".maps");

struct subnet {
	__u32 bits;
	__be32 addr;
};

struct remote {
	__be32 addr;
	__be16 port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); // as many as there are leases, before loading
	__type(key, struct subnet);
	__type(value, struct remote);
} udp_leases SEC(".maps");

struct headers {
	struct iphdr ip;
	struct udphdr udp;
};

struct gpe_headers {
	struct headers outer;
	__be32 flags;
	__be32 vni; // anything: flannel0 takes all
};

static __always_inline void count(__u32 which, __u64 n)
{
	__u64 *v = bpf_map_lookup_elem(&udp_counters, &which);
	if (v)
		*v += n;
}

static __always_inline int drop(__u32 why)
{
	count(why, 1);
	return TC_ACT_SHOT;
}

static __always_inline __u16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void checksum(struct iphdr *ip)
{
	ip->check = 0;
	ip->check = fold(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

// spend_ttl takes one off the TTL at offset off of the packet (RFC 1624, as the
// kernel's ip_decrease_ttl does). What it changes adds up to nothing, so that a
// checksum of the whole packet stays as it is.
static __always_inline long spend_ttl(struct __sk_buff *skb, __u32 off, struct iphdr *in)
{
	__u32 check = (__u32)in->check + bpf_htons(0x0100);

	in->check = check + (check >= 0xffff);
	in->ttl--;
	return bpf_skb_store_bytes(skb, off + offsetof(struct iphdr, ttl), &in->ttl, 4, 0);
}

// <linux/icmp.h> drags in the C library.
#define ICMP_DEST_UNREACH 3
#define ICMP_NET_UNREACH 0

struct icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 unused;
};

struct answer {
	struct iphdr ip;
	struct icmp icmp;
	__u8 quote[60 + 8]; // the longest header and 8 bytes (RFC 792)
};

static __always_inline int multicast(__be32 addr)
{
	return (bpf_ntohl(addr) >> 28) >= 0xe; // or reserved, or broadcast
}

// unreachable turns a packet for which there is no lease into the answer to it and
// lets flannel0 receive that. It speaks in the name of the destination, as
// datapath/udptun does, and keeps silent where ICMP has to (RFC 1122 §3.2.2).
static __always_inline int unreachable(struct __sk_buff *skb, const struct iphdr *in)
{
	struct answer a;
	__u64 quote = in->ihl * 4 + 8;

	count(NO_LEASE, 1);
	if (in->protocol == IPPROTO_ICMP || in->frag_off & bpf_htons(IP_OFFSET) || !in->saddr ||
	    multicast(in->saddr) || multicast(in->daddr))
		return TC_ACT_SHOT;
	if (quote > skb->len)
		quote = skb->len;
	// Two comparisons, of the very register that is used then: in one of a difference,
	// or of a copy of 32 bits, the verifier of Linux 6.1 sees no bound.
	if (quote < sizeof(*in))
		return TC_ACT_SHOT;
	barrier_var(quote);
	if (quote > sizeof(a.quote))
		return TC_ACT_SHOT;
	__builtin_memset(&a, 0, sizeof(a));
	if (bpf_skb_load_bytes(skb, 0, a.quote, quote))
		return drop(FAILED);
	a.ip.version = 4;
	a.ip.ihl = sizeof(a.ip) / 4;
	__u32 length = sizeof(a.ip) + sizeof(a.icmp) + quote;
	a.ip.tot_len = bpf_htons(length);
	a.ip.ttl = ANSWER_TTL;
	a.ip.protocol = IPPROTO_ICMP;
	a.ip.saddr = in->daddr;
	a.ip.daddr = in->saddr;
	checksum(&a.ip);
	a.icmp.type = ICMP_DEST_UNREACH;
	a.icmp.code = ICMP_NET_UNREACH;
	// The zeros behind the quotation add nothing.
	a.icmp.checksum = fold(bpf_csum_diff(0, 0, (__be32 *)&a.icmp, sizeof(a.icmp) + sizeof(a.quote), 0));
	// A longer packet of which the front is taken off: with where it was to begin,
	// the kernel forgets that the offender's checksum was yet to be made
	// (include/linux/skbuff.h, skb_postpull_rcsum).
	const int front = 64;
	if (bpf_skb_change_tail(skb, front + length, 0) ||
	    bpf_skb_adjust_room(skb, -front, BPF_ADJ_ROOM_MAC, 0) ||
	    length > sizeof(a) || bpf_skb_store_bytes(skb, 0, &a, length, 0))
		return drop(FAILED);
	count(UNREACHABLES, 1);
	return bpf_redirect(tunnel_ifindex, BPF_F_INGRESS);
}

static __always_inline void outer_headers(struct headers *o, __u32 inner_len, const struct remote *to)
{
	__builtin_memset(o, 0, sizeof(*o));
	o->ip.version = 4;
	o->ip.ihl = sizeof(o->ip) / 4;
	o->ip.tot_len = bpf_htons(inner_len + sizeof(*o));
	o->ip.frag_off = bpf_htons(IP_DF);
	o->ip.ttl = OUTER_TTL;
	o->ip.protocol = IPPROTO_UDP;
	o->ip.saddr = local_ip;
	o->ip.daddr = to->addr;
	checksum(&o->ip);
	o->udp.source = local_port;
	o->udp.dest = to->port;
	o->udp.len = bpf_htons(inner_len + sizeof(o->udp));
}

// make_room opens 28 bytes in front of the inner packet.
static __always_inline long make_room(struct __sk_buff *skb)
{
	long rc = bpf_skb_adjust_room(skb, sizeof(struct headers), BPF_ADJ_ROOM_MAC,
				      BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
				      BPF_F_ADJ_ROOM_FIXED_GSO);
	// A pod's own tunnel has made marks already; they fit, its packet is where it was.
	if (rc == -EALREADY)
		rc = bpf_skb_adjust_room(skb, sizeof(struct headers), BPF_ADJ_ROOM_MAC,
					 BPF_F_ADJ_ROOM_FIXED_GSO);
	return rc;
}

SEC("tc")
int udp_encap(struct __sk_buff *skb)
{
	struct iphdr in;
	struct headers outer;
	struct ethhdr eth = { .h_proto = bpf_htons(ETH_P_IP) };
	__u32 inner_len = skb->len;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, 0, &in, sizeof(in)))
		return drop(NOT_IPV4);
	struct subnet dst = { .bits = 32, .addr = in.daddr };
	struct remote *to = bpf_map_lookup_elem(&udp_leases, &dst);
	if (!to)
		return unreachable(skb, &in);
	if (in.ttl <= 1)
		return drop(TTL_EXPIRED);
	if (inner_len + sizeof(struct gpe_headers) > 0xffff)
		return drop(TOO_LONG);
	outer_headers(&outer, inner_len, to);
	if (spend_ttl(skb, 0, &in) || make_room(skb) || bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), 0))
		return drop(FAILED);
	// bpf_redirect_neigh wants a link layer header to take off
	// (net/core/filter.c, __bpf_redirect_neigh).
	if (bpf_skb_change_head(skb, sizeof(eth), 0) ||
	    bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return drop(FAILED);
	count(ENCAP_PACKETS, 1);
	count(ENCAP_BYTES, inner_len);
	return bpf_redirect_neigh(underlay_ifindex, NULL, 0, 0);
}

// is_ours says whether decap is to take the datagram. All others go on to the stack.
static __always_inline int is_ours(const struct headers *o)
{
	return o->ip.version == 4 && o->ip.ihl == sizeof(o->ip) / 4 && o->ip.protocol == IPPROTO_UDP &&
	       o->ip.daddr == local_ip && o->udp.dest == local_port &&
	       !(o->ip.frag_off & bpf_htons(IP_FRAGMENT));
}

SEC("tc")
int udp_decap(struct __sk_buff *skb)
{
	struct gpe_headers h;
	struct iphdr in;
	const __u32 inner_off = ETH_HLEN + sizeof(h.outer);

	// A flooded frame for another MAC is another host's packet: the stack drops
	// it before IP (net/ipv4/ip_input.c, ip_rcv_core).
	if (skb->pkt_type != PACKET_HOST || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &h.outer, sizeof(h.outer)) || !is_ours(&h.outer))
		return TC_ACT_UNSPEC;
	// Nothing else that is for this port may reach flannel0's driver, which would
	// take the inner packet for a VXLAN header.
	__u32 inner_len = bpf_ntohs(h.outer.udp.len) - sizeof(h.outer.udp);
	if (bpf_ntohs(h.outer.ip.tot_len) != inner_len + sizeof(h.outer) || inner_off + inner_len > skb->len ||
	    bpf_skb_load_bytes(skb, inner_off, &in, sizeof(in)))
		return drop(BAD_LENGTH);
	if (in.version != 4)
		return drop(NOT_IPV4);
	if (bpf_ntohs(in.tot_len) != inner_len)
		return drop(skb->gso_size && bpf_ntohs(in.tot_len) < inner_len ? COALESCED : BAD_LENGTH);
	if (in.ihl < sizeof(in) / 4 || in.ihl * 4 > inner_len)
		return drop(BAD_LENGTH);
	if (in.ttl <= 1)
		return drop(TTL_EXPIRED);
	if (inner_len + sizeof(h) > 0xffff)
		return drop(TOO_LONG);
	if (spend_ttl(skb, inner_off, &in) ||
	    bpf_skb_adjust_room(skb, sizeof(h) - sizeof(h.outer), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
		return drop(FAILED);
	h.outer.ip.tot_len = bpf_htons(inner_len + sizeof(h));
	checksum(&h.outer.ip);
	h.outer.udp.len = bpf_htons(inner_len + sizeof(h) - sizeof(h.outer.ip));
	h.outer.udp.check = 0; // what is inside has its own
	h.flags = bpf_htonl(GPE_IPV4);
	h.vni = 0;
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM))
		return drop(FAILED);
	count(DECAP_PACKETS, 1);
	count(DECAP_BYTES, inner_len);
	return TC_ACT_UNSPEC;
}
