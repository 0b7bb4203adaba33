// Package skbtrace follows socket buffers through the kernel: BPF programs on
// tracepoints (tp_btf) and on netfilter hooks report each point that a wanted
// packet passes, in any network namespace, keyed by its skb. Attached programs
// belong to file descriptors of this process, so that nothing stays loaded when
// it ends, however it ends.
package skbtrace

import "slipway/datapath"

// Point is where in the kernel an event was made.
type Point uint8

// The points.
const (
	Receive  Point = iota + 1 // tracepoint net:netif_receive_skb: a device's packet enters the stack
	Rx                        // net:netif_rx: queued to this CPU's backlog (veth, tunnels)
	Queue                     // net:net_dev_queue: handed to a device's queue
	Xmit                      // net:net_dev_start_xmit: handed to the driver
	Free                      // skb:kfree_skb: dropped, with a reason
	Consume                   // skb:consume_skb: done with, no loss
	ICMPSend                  // icmp:icmp_send: an ICMP error about this packet
	Hook                      // a netfilter hook, at the priority of the event
)

// Event is one point that a wanted packet passed.
type Event struct {
	TimeNs   int64 // CLOCK_MONOTONIC
	Skb      uint64
	CPU      int
	Point    Point
	Inode    uint64 // of the network namespace
	Device   string // skb->dev; for Hook see In and Out
	Index    int    // of Device
	Hook     string // prerouting | input | forward | output | postrouting
	Priority int    // of the hook function: which tables are behind it
	In, Out  string // devices of the hook
	Reason   string // of Free: the kernel's name without SKB_DROP_REASON_, "NETFILTER_DROP"
	Location string // of Free and Consume: the kernel function, "nf_hook_slow"
	ICMPType uint8  // of ICMPSend
	ICMPCode uint8
	Length   int    // skb->len, bytes
	Mark     uint32 // skb->mark
	// PacketType is skb->pkt_type: host | broadcast | multicast | otherhost | outgoing.
	PacketType     string
	SrcMAC, DstMAC [6]byte // zero where there is no frame header (yet)
	// Data begins with the outermost IPv4 header and is cut at SnapLen bytes.
	Data []byte
}

// SnapLen is how many bytes of a packet an event holds at most: enough for
// VXLAN (50 bytes), an inner IPv4 and TCP header with options, and what an ICMP
// error quotes.
const SnapLen = 192

// Flow selects packets. A packet is wanted if it or the packet that it carries or
// quotes matches, in either direction; and once a wanted skb is rewritten (NAT), so
// is what it was rewritten to.
type Flow = datapath.Flow

// Ports are the UDP destination ports by which encapsulated packets are known.
type Ports = datapath.Ports
