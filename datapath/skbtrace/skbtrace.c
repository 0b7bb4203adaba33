//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Events of wanted packets. What costs is the packet that nobody wants, so the
// first thing is a look at its addresses in a small filter, and everything else
// comes after. Pointers that tracepoints and netfilter give are read directly;
// headers through bpf_rdonly_cast, which reads zeros where there is nothing.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/netfilter.h>
#include <linux/udp.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define SNAP_LEN 192	    // SnapLen in event.go
#define MAX_FLOWS 16	    // maxFlows in flow.go
#define BLOOM 1024	    // bloomSize in flow.go
#define MAX_LEVELS 4	    // an ICMP error in a tunnel about a packet in a tunnel
#define RING_BYTES (4 << 20)
#define KEEP_JIFFIES 2000   // how long after a match hooks and frees are looked at
#define FIRST_INODE 0xF0000000 // of a namespace: PROC_DYNAMIC_FIRST, fs/proc/generic.c
#define MAC_UNSET 0xffff    // skb_mac_header_was_set, include/linux/skbuff.h
#define IP_MF 0x2000	    // include/net/ip.h
#define IP_OFFSET 0x1fff
#define VXLAN_HEADER 8	    // RFC 7348
#define ICMP_HEADER 8	    // RFC 792
#define MAX_SEGMENTS 64	    // UDP_MAX_SEGMENTS of older kernels, include/linux/udp.h
#define CARRIER 28	    // an IPv4 header without options and UDP's
#define LEAST 28	    // of a packet: an IPv4 header and what upper reads behind it
#define QUOTING 56	    // and what an ICMP error quotes at least

// In the order of type Point in event.go.
enum point { RECEIVE = 1, RX, QUEUE, XMIT, FREE, CONSUME, ICMP_SEND, HOOK };

// A flow that is wanted, in either direction; zero is any.
struct flow {
	__be32 src, dst;
	__be16 sport, dport;
	__be16 icmp_id;
	__u8 proto;
	__u8 pad;
};

// One direction of a connection, or the later fragments of one packet.
struct tuple {
	__be32 src, dst;
	__be16 sport, dport; // echo: the identifier and 0; fragment: the packet's identification and 0
	__u16 proto;
	__u16 fragment;
};

// What the headers of a packet say.
struct look {
	struct tuple inner; // the innermost packet, what an ICMP error quotes included
	__u64 print;	    // of the innermost packet that is not quoted: what NAT leaves alone
	__u8 wanted, quoted, first_fragment, pad;
	__be16 id, pad2;
};

// A wanted packet on its way.
struct track {
	__u64 print;
	__u64 inode; // of the namespace where it was last
	__u32 slot;  // of the hook program that saw it last
	__u32 pad;
};

struct event {
	__u64 time, skb;
	__u64 inode;
	__u32 index, reason, length, mark, cpu, captured;
	__u8 point, hook, slot, packet_type;
	__u8 icmp_type, icmp_code, ethernet, pad;
	__u8 device[16], in[16], out[16];
	__u8 symbol[48];
	__u8 mac[ETH_HLEN], pad2[2];
	__u8 data[SNAP_LEN];
};
const struct event *unused_event __attribute__((unused)); // for the generated Go type

// Set before loading, in network order.
volatile const __be16 vxlan_port;
volatile const __be16 udp_port;
volatile const bool read_segments; // not every kernel has bpf_dynptr_from_skb for tracepoints

// Written by user space while the programs run.
struct flow flows[MAX_FLOWS];
__u32 flow_count;
__u32 addresses_needed; // so many of its addresses must be in the filter for a packet to be wanted

// The filter: addresses of flows, and of what wanted packets were rewritten to.
__u8 bloom[BLOOM];
__u8 bloom_learned[BLOOM];

__u32 learned;	    // there is something in tuples
__u64 active_until; // jiffies: until then there may be wanted packets on their way
__u64 lost;	    // events without room

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

// Not every way of freeing a packet is traced, so old entries must go by themselves.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct track);
} tracked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tuple);
	__type(value, __u8);
} tuples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} spaces SEC(".maps");

// Compiled with TRACEPOINTS_ONLY the programs need nothing that came after Linux
// 5.17: neither netfilter programs (6.4) nor functions of the kernel's (6.2).
#ifdef TRACEPOINTS_ONLY

static __always_inline const void *read_into(void *to, __u32 size, const void *from)
{
	bpf_probe_read_kernel(to, size, from);
	return to;
}

#define AT(kind, address) ((const struct kind *)read_into(&(struct kind){}, sizeof(struct kind), (const void *)(address)))
#define SELF(kind, pointer) (pointer)

// What helpers read is a number to every version of the verifier.
static __always_inline __u64 head_of(const struct sk_buff *skb)
{
	return (__u64)BPF_CORE_READ(skb, head);
}

static __always_inline __u32 headroom(const struct sk_buff *skb)
{
	return (__u64)BPF_CORE_READ(skb, data) - head_of(skb);
}

#else

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;

// What is at that address, if it can be read; if not, zeros are.
//
// The programs' own arguments are looked at in this way too: for each pointer
// that is read through one that the verifier trusts, it searches all names of
// the kernel's types several times (type_is_trusted and type_is_rcu,
// kernel/bpf/verifier.c), which made loading ten times slower.
#define AT(kind, address) ((const struct kind *)bpf_rdonly_cast((const void *)(address), bpf_core_type_id_kernel(struct kind)))
#define SELF(kind, pointer) AT(kind, pointer)

// A pointer as a number, which functions can be given: what is left of one, as the
// verifier sees it, when nothing is subtracted.
static __always_inline __u64 number_of(const void *pointer)
{
	const void *zero = bpf_rdonly_cast(NULL, bpf_core_type_id_kernel(struct iphdr));

	return pointer - zero;
}

static __always_inline __u64 head_of(const struct sk_buff *skb)
{
	return number_of(skb->head);
}

static __always_inline __u32 headroom(const struct sk_buff *skb)
{
	return (__u64)skb->data - (__u64)skb->head;
}

#endif

// bloomIndex in flow.go is the same.
static __always_inline __u32 bloom_index(__be32 addr)
{
	return (addr * 0x9E3779B1u) >> 22;
}

static __always_inline bool fits(__u32 want, __u32 have)
{
	return !want || want == have;
}

static __always_inline bool flow_fits(const struct flow *f, __be32 src, __be32 dst, __be16 sport, __be16 dport)
{
	return fits(f->src, src) && fits(f->dst, dst) && fits(f->sport, sport) && fits(f->dport, dport);
}

// flow_fits_at and the other functions that are not inlined are there for the
// verifier, which looks at each once, and not for each way to come to it.
__noinline int flow_fits_at(__u32 i, __be32 src, __be32 dst, __u32 ports, __u32 proto)
{
	const struct flow *f = &flows[i % MAX_FLOWS];
	__be16 sport = ports & 0xffff, dport = ports >> 16;

	if (!fits(f->proto, proto))
		return 0;
	if (proto == IPPROTO_ICMP) {
		if (!fits(f->icmp_id, sport))
			return 0;
		return (fits(f->src, src) && fits(f->dst, dst)) || (fits(f->src, dst) && fits(f->dst, src));
	}
	return flow_fits(f, src, dst, sport, dport) || flow_fits(f, dst, src, dport, sport);
}

static __always_inline __u32 known(__be32 addr)
{
	__u32 i = bloom_index(addr);

	return bloom[i] | bloom_learned[i];
}

__noinline int tuple_wanted(const struct tuple *t)
{
	struct tuple key;

	if (!t || known(t->src) + known(t->dst) < addresses_needed)
		return 0;
	if (!t->fragment) {
		for (__u32 i = 0; i < MAX_FLOWS && i < flow_count; i++) {
			if (flow_fits_at(i, t->src, t->dst, t->sport | (__u32)t->dport << 16, t->proto))
				return 1;
		}
	}
	key = *t; // before Linux 6.2, keys of maps must be on the stack
	return learned && bpf_map_lookup_elem(&tuples, &key) != NULL;
}

// icmp_error: RFC 1122 §3.2.2.
static __always_inline bool icmp_error(__u8 type)
{
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

// carried returns where the packet begins that is carried behind UDP, 0 if none.
// VXLAN is known by its port or, as a wrong port is what somebody may be after,
// by its header: the I flag alone, and the reserved fields zero (RFC 7348 §5).
static __always_inline __u32 carried(__u64 head, __u32 payload, __u32 end, __be16 port)
{
	if (udp_port && port == udp_port)
		return payload;
	if (!vxlan_port || payload + VXLAN_HEADER + ETH_HLEN > end)
		return 0;
	if (port != vxlan_port) {
		// Eight bytes by a type that every kernel has: flags, VNI, reserved.
		const struct udphdr *h = AT(udphdr, head + payload);

		if (h->source != bpf_htons(0x0800) || h->dest || h->check & bpf_htons(0x00ff))
			return 0;
	}
	if (AT(ethhdr, head + payload + VXLAN_HEADER)->h_proto != bpf_htons(ETH_P_IP))
		return 0;
	return payload + VXLAN_HEADER + ETH_HLEN;
}

// upper reads the first eight bytes behind the IPv4 header: those of TCP, UDP,
// SCTP and ICMP. It returns where a packet that is carried or quoted begins.
static __always_inline __u32 upper(__u64 head, __u32 at, __u32 end, struct tuple *t, __u32 *word)
{
	const struct udphdr *u = AT(udphdr, head + at);
	__u8 type;

	switch (t->proto) {
	case IPPROTO_ICMP:
		type = u->source & 0xff; // little-endian: the first byte
		*word = u->check;	 // the sequence number
		if (icmp_error(type))
			return at + ICMP_HEADER;
		t->sport = u->len; // the identifier
		return 0;
	case IPPROTO_UDP:
		t->sport = u->source;
		t->dport = u->dest;
		*word = u->len;
		return carried(head, at + sizeof(*u), end, t->dport);
	case IPPROTO_IPIP:
		return at;
	default:
		t->sport = u->source;
		t->dport = u->dest;
		*word = u->len | (__u32)u->check << 16; // TCP: the sequence number
		return 0;
	}
}

// look_at_one reads the headers of the packet whose IPv4 header is at head+at, up
// to head+end, and returns where the packet begins that it carries or quotes.
__noinline int look_at_one(__u64 head, __u32 at, __u32 end, struct look *l)
{
	struct tuple t = {};
	__u32 word = 0, next = 0;
	__u16 fragment;
	__u8 first;

	if (!l || at + sizeof(struct iphdr) + sizeof(struct udphdr) > end)
		return 0;
	const struct iphdr *ip = AT(iphdr, head + at);

	first = *(const __u8 *)ip;
	if (first >> 4 != 4)
		return 0;
	fragment = bpf_ntohs(ip->frag_off);
	t.src = ip->saddr;
	t.dst = ip->daddr;
	t.proto = ip->protocol;
	if (fragment & IP_OFFSET) {
		t.fragment = 1;
		t.sport = ip->id;
	} else {
		at += (first & 0xf) * 4;
		if (at + sizeof(struct udphdr) <= end)
			next = upper(head, at, end, &t, &word);
	}
	l->inner = t;
	if (!l->quoted) {
		l->print = (__u64)word << 32 | (__u32)ip->id << 16 | ip->tot_len;
		l->first_fragment = (fragment & (IP_MF | IP_OFFSET)) == IP_MF;
		l->id = ip->id;
	}
	if (tuple_wanted(&t))
		l->wanted = 1;
	if (t.proto == IPPROTO_ICMP)
		l->quoted = 1;
	return next;
}

// look_at reads all headers of a packet.
static __always_inline void look_at(const struct sk_buff *skb, __u32 at, struct look *l)
{
	__u64 head = head_of(skb);

	for (int level = 0; level < MAX_LEVELS; level++) {
		at = look_at_one(head, at, skb->tail, l);
		if (!at)
			break;
	}
}

#ifndef TRACEPOINTS_ONLY

// What is behind one header, packet after packet of one size.
struct segments {
	struct bpf_dynptr packet;
	__u32 from, size, length; // counted from skb->data
	struct look found;
};

// next_segment looks whether the one at from is wanted, and goes to the next if
// not. It returns 1 to end.
static long next_segment(__u32 i, struct segments *s)
{
	struct look l = {};
	__u8 head[QUOTING];
	__u32 end = QUOTING, next;

	if (s->from >= s->length)
		return 1;
	if (bpf_dynptr_read(head, QUOTING, &s->packet, s->from, 0)) {
		end = LEAST;
		if (bpf_dynptr_read(head, LEAST, &s->packet, s->from, 0))
			return 1;
	}
	next = look_at_one(number_of(head), 0, end, &l);
	if (next)
		look_at_one(number_of(head), next, end, &l);
	if (l.wanted) {
		s->found = l;
		return 1;
	}
	s->from += s->size;
	return 0;
}

// segment_wanted looks for a wanted packet among those that the process of a UDP
// tunnel handed to the kernel as one, to be cut up (UDP_SEGMENT, udp(7)): they
// are behind one header, and mostly in memory of their own. It returns where in
// the packet that begins, counted from skb->data; 0 if none is wanted.
//
// Only here the packet is needed as the verifier trusts it.
static __always_inline __u32 segment_wanted(const struct sk_buff *trusted, __u32 at, struct look *found)
{
	const struct sk_buff *skb = SELF(sk_buff, trusted);
	const struct iphdr *ip = AT(iphdr, skb->head + at);
	struct segments s = {};
	__u64 ahead;

	if (!read_segments || !udp_port || ip->protocol != IPPROTO_UDP || *(const __u8 *)ip != 0x45)
		return 0;
	if (AT(udphdr, skb->head + at + sizeof(*ip))->dest != udp_port)
		return 0;
	s.size = AT(skb_shared_info, skb->head + skb->end)->gso_size;
	ahead = (__u64)skb->data - (__u64)skb->head;
	barrier_var(ahead); // pointers are subtracted in 64 bits only
	s.from = at + CARRIER - (__u32)ahead;
	s.length = skb->len;
	if (!s.size || s.from > s.length)
		return 0;
	bpf_dynptr_from_skb((struct __sk_buff *)trusted, 0, &s.packet);
	bpf_loop(MAX_SEGMENTS, next_segment, &s, 0);
	if (!s.found.wanted)
		return 0;
	*found = s.found;
	return s.from;
}

// take_segment puts the wanted packet in the place of the first one.
static __always_inline void take_segment(struct event *e, const struct sk_buff *trusted, __u32 from)
{
	__u32 n = SELF(sk_buff, trusted)->len - from;
	struct bpf_dynptr packet;

	if (!read_segments || !from)
		return;
	if (n > SNAP_LEN - CARRIER)
		n = SNAP_LEN - CARRIER;
	bpf_dynptr_from_skb((struct __sk_buff *)trusted, 0, &packet);
	if (!bpf_dynptr_read(e->data + CARRIER, n, &packet, from, 0))
		e->captured = CARRIER + n;
}

#else

static __always_inline __u32 segment_wanted(const struct sk_buff *trusted, __u32 at, struct look *found)
{
	return 0;
}

static __always_inline void take_segment(struct event *e, const struct sk_buff *trusted, __u32 from)
{
}

#endif

// learn makes the tuple wanted, and its answers.
static __always_inline void learn(const struct tuple *t)
{
	struct tuple back = {.src = t->dst, .dst = t->src, .sport = t->dport, .dport = t->sport, .proto = t->proto};
	__u8 one = 1;

	if (t->proto == IPPROTO_ICMP) {
		back.sport = t->sport;
		back.dport = 0;
	}
	bpf_map_update_elem(&tuples, t, &one, BPF_ANY);
	bpf_map_update_elem(&tuples, &back, &one, BPF_ANY);
	learned = 1;
	bloom_learned[bloom_index(t->src)] = 1;
	bloom_learned[bloom_index(t->dst)] = 1;
}

// learn_fragments makes the later fragments of a packet wanted.
static __always_inline void learn_fragments(const struct look *l)
{
	struct tuple t = {.src = l->inner.src, .dst = l->inner.dst, .sport = l->id, .proto = l->inner.proto, .fragment = 1};
	__u8 one = 1;

	bpf_map_update_elem(&tuples, &t, &one, BPF_ANY);
	learned = 1;
}

static __always_inline bool active(void)
{
	return bpf_jiffies64() < active_until;
}

static __always_inline bool in_spaces(__u64 inode)
{
	return bpf_map_lookup_elem(&spaces, &inode) != NULL;
}

// where returns the inode of the namespace that the packet is in, 0 if that is
// none of ours. A packet that is being freed may have lost its device, whose
// field then holds something else (UDP receive: dev_scratch).
static __always_inline __u64 where(const struct sk_buff *skb, __u8 point, const struct track *t)
{
	const struct net_device *dev = skb->dev;
	const struct sock *sk;
	__u64 inode = 0;

	if (dev)
		inode = dev->nd_net.net->ns.inum;
	if (inode && in_spaces(inode))
		return inode;
	if (point <= XMIT || inode >= FIRST_INODE)
		return 0;
	sk = skb->sk;
	inode = 0;
	if (sk)
		inode = sk->__sk_common.skc_net.net->ns.inum;
	if (inode && in_spaces(inode))
		return inode;
	return t ? t->inode : 0;
}

// offset is where the IPv4 header is. What a device hands up begins with it,
// while the network header is only set afterwards (__netif_receive_skb_core).
static __always_inline __u32 offset(const struct sk_buff *skb, __u8 point)
{
	if (point == RECEIVE || point == RX)
		return headroom(skb);
	return skb->network_header;
}

// strange_tcp says of most of what passes, and at little cost, that it is not wanted:
// a TCP packet, which carries no other, between hosts of no flow.
static __always_inline bool strange_tcp(const struct sk_buff *skb, __u32 at)
{
	const struct iphdr *ip = AT(iphdr, skb->head + at);

	return at + sizeof(*ip) <= skb->tail && ip->protocol == IPPROTO_TCP &&
	       known(ip->saddr) + known(ip->daddr) < addresses_needed && !active();
}

// follow decides whether the packet is wanted and returns the namespace where
// it is; 0 if it is not wanted. With inode the caller says where. It tells where
// the wanted one begins if that is not the first of several.
static __always_inline __u64 follow(const struct sk_buff *trusted, __u8 point, __u32 at, __u64 inode, __u32 *segment)
{
	const struct sk_buff *skb = SELF(sk_buff, trusted);
	struct look l = {};
	struct track *t = NULL, now = {};
	__u64 key = (__u64)skb;

	if (skb->protocol != bpf_htons(ETH_P_IP) || strange_tcp(skb, at))
		return 0;
	look_at(skb, at, &l);
	if (!l.wanted)
		*segment = segment_wanted(trusted, at, &l);
	if (!l.wanted && !active())
		return 0;
	t = bpf_map_lookup_elem(&tracked, &key);
	if (!l.wanted) {
		if (!t)
			return 0;
		if (t->print != l.print) { // another packet in the same memory
			bpf_map_delete_elem(&tracked, &key);
			return 0;
		}
	}
	if (!inode)
		inode = where(skb, point, t);
	if (!inode)
		return 0;
	if (!l.wanted && !l.inner.fragment) // rewritten
		learn(&l.inner);
	if (l.first_fragment)
		learn_fragments(&l);
	now.print = l.print;
	now.inode = inode;
	if (t)
		now.slot = t->slot;
	bpf_map_update_elem(&tracked, &key, &now, BPF_ANY);
	active_until = bpf_jiffies64() + KEEP_JIFFIES;
	return inode;
}

static __always_inline void name(__u8 *to, const struct net_device *dev)
{
	to[0] = 0;
	if (dev)
		bpf_probe_read_kernel_str(to, 16, dev->name);
}

// reserve makes an event of the packet with what all points have.
static __always_inline struct event *reserve(const struct sk_buff *skb, __u8 point, __u32 at, __u64 inode)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	__u64 head = (__u64)skb->head;
	__u32 end = skb->tail, n = 0;
	__u16 mac = skb->mac_header;

	if (!e) {
		__sync_fetch_and_add(&lost, 1);
		return NULL;
	}
	e->time = bpf_ktime_get_ns();
	e->skb = (__u64)skb;
	e->inode = inode;
	e->length = skb->len;
	e->mark = skb->mark;
	e->cpu = bpf_get_smp_processor_id();
	e->point = point;
	e->packet_type = BPF_CORE_READ_BITFIELD(skb, pkt_type);
	e->index = e->reason = 0;
	e->hook = e->slot = e->icmp_type = e->icmp_code = 0;
	e->device[0] = e->in[0] = e->out[0] = e->symbol[0] = 0;
	e->ethernet = mac != MAC_UNSET && mac + ETH_HLEN == at;
	if (e->ethernet)
		bpf_probe_read_kernel(e->mac, ETH_HLEN, (void *)(head + mac));
	if (at < end)
		n = end - at;
	if (n > SNAP_LEN)
		n = SNAP_LEN;
	bpf_probe_read_kernel(e->data, n, (void *)(head + at));
	e->captured = n;
	return e;
}

static __always_inline void add_device(struct event *e, const struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;

	if (!dev || dev->nd_net.net->ns.inum != e->inode)
		return;
	name(e->device, dev);
	e->index = dev->ifindex;
}

// A wake-up would come while the packet is on its way and take the time that is
// to be measured, so the reader looks by itself.
static __always_inline void submit(struct event *e)
{
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline void device_point(const struct sk_buff *trusted, __u8 point)
{
	const struct sk_buff *skb = SELF(sk_buff, trusted);
	__u32 at = offset(skb, point);
	__u32 segment = 0;
	__u64 inode = follow(trusted, point, at, 0, &segment);
	struct event *e;

	if (!inode)
		return;
	e = reserve(skb, point, at, inode);
	if (!e)
		return;
	take_segment(e, trusted, segment);
	add_device(e, skb);
	submit(e);
}

SEC("tp_btf/netif_receive_skb")
int BPF_PROG(on_receive, struct sk_buff *skb)
{
	device_point(skb, RECEIVE);
	return 0;
}

SEC("tp_btf/netif_rx")
int BPF_PROG(on_rx, struct sk_buff *skb)
{
	device_point(skb, RX);
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_queue, struct sk_buff *skb)
{
	device_point(skb, QUEUE);
	return 0;
}

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(on_xmit, struct sk_buff *skb)
{
	device_point(skb, XMIT);
	return 0;
}

static __always_inline void end_point(const struct sk_buff *trusted, __u8 point, void *location, __u32 reason)
{
	const struct sk_buff *skb = SELF(sk_buff, trusted);
	static const char symbol[] = "%ps";
	__u64 key = (__u64)skb, args[1] = {(__u64)location};
	__u32 at = offset(skb, point);
	__u32 segment = 0;
	__u64 inode = follow(trusted, point, at, 0, &segment);
	struct event *e;

	if (!inode)
		return;
	bpf_map_delete_elem(&tracked, &key);
	e = reserve(skb, point, at, inode);
	if (!e)
		return;
	take_segment(e, trusted, segment);
	add_device(e, skb);
	e->reason = reason;
	if (location)
		bpf_snprintf((char *)e->symbol, sizeof(e->symbol), symbol, args, sizeof(args));
	submit(e);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(on_free, struct sk_buff *skb, void *location, __u32 reason)
{
	end_point(skb, FREE, location, reason);
	return 0;
}

// The place is told since Linux 6.3.
SEC("tp_btf/consume_skb")
#ifdef TRACEPOINTS_ONLY
int BPF_PROG(on_consume, struct sk_buff *skb)
{
	void *location = NULL;
#else
int BPF_PROG(on_consume, struct sk_buff *skb, void *location)
{
#endif
	__u64 key = (__u64)skb;

	if (!active() || !bpf_map_lookup_elem(&tracked, &key))
		return 0;
	end_point(skb, CONSUME, location, 0);
	return 0;
}

#ifndef TRACEPOINTS_ONLY

SEC("tp_btf/icmp_send")
int BPF_PROG(on_icmp_send, struct sk_buff *trusted, int type, int code)
{
	const struct sk_buff *skb = SELF(sk_buff, trusted);
	__u32 at = offset(skb, ICMP_SEND);
	__u32 segment = 0;
	__u64 inode = follow(trusted, ICMP_SEND, at, 0, &segment);
	struct event *e;

	if (!inode)
		return 0;
	e = reserve(skb, ICMP_SEND, at, inode);
	if (!e)
		return 0;
	take_segment(e, trusted, segment);
	add_device(e, skb);
	e->icmp_type = type;
	e->icmp_code = code;
	submit(e);
	return 0;
}

// The only entry is on_hook.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} hook_program SEC(".maps");

SEC("netfilter")
int on_hook(struct bpf_nf_ctx *ctx)
{
	const struct nf_hook_state *state = AT(nf_hook_state, ctx->state);
	const struct sk_buff *skb = AT(sk_buff, ctx->skb);
	__u64 inode = state->net->ns.inum, key = (__u64)skb;
	__u32 at = offset(skb, HOOK), segment = 0;
	struct track *t;
	struct event *e;

	if (!follow(ctx->skb, HOOK, at, inode, &segment))
		return NF_ACCEPT;
	e = reserve(skb, HOOK, at, inode);
	if (!e)
		return NF_ACCEPT;
	take_segment(e, ctx->skb, segment);
	t = bpf_map_lookup_elem(&tracked, &key);
	if (t)
		e->slot = t->slot;
	e->hook = state->hook;
	name(e->in, state->in);
	name(e->out, state->out);
	submit(e);
	return NF_ACCEPT;
}

// What is attached is a small program for each priority (points.go), as a program
// is not told at which one it runs; it leaves that with the packet for on_hook.
// All packets but those that this namespace sends have passed a tracepoint
// before, so that nothing is to be done while none is on its way.
static __always_inline int hook(struct bpf_nf_ctx *ctx, __u8 slot)
{
	__u64 key = (__u64)ctx->skb;
	struct track *t;

	if (active()) {
		t = bpf_map_lookup_elem(&tracked, &key);
		if (t) {
			t->slot = slot;
			bpf_tail_call(ctx, &hook_program, 0);
			return NF_ACCEPT;
		}
	}
	if (slot == 0 && ctx->state->hook == NF_INET_LOCAL_OUT)
		bpf_tail_call(ctx, &hook_program, 0);
	return NF_ACCEPT;
}

#define HOOK_PROGRAM(slot)                                                     \
	SEC("netfilter")                                                       \
	int on_hook##slot(struct bpf_nf_ctx *ctx)                              \
	{                                                                      \
		return hook(ctx, slot);                                        \
	}

HOOK_PROGRAM(0)
HOOK_PROGRAM(1)
HOOK_PROGRAM(2)
HOOK_PROGRAM(3)
HOOK_PROGRAM(4)
HOOK_PROGRAM(5)
HOOK_PROGRAM(6)

#endif
