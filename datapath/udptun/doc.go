// Package udptun is the data plane of flannel's UDP backend: it carries the IPv4
// packets of a TUN device bare in UDP datagrams to the node that holds their
// destination's lease, and back.
//
// The wire format and the rules of a pass are flanneld's (flannel
// pkg/backend/udp/proxy_amd64.c), so either end may be a real flanneld: the
// datagram's payload is the inner packet and nothing else; each pass through the
// tunnel, in either direction, takes one off the TTL and drops what would reach
// zero without a word; a packet that no lease covers is answered with an ICMP net
// unreachable; datagrams are taken from anybody.
//
// Two implementations do the same with different costs. The simple one moves one
// packet per system call, the honest picture of a user-space tunnel. The batched
// one lets the kernel hand over TCP and UDP super-packets (TSO, USO), writes one
// header per segment beside the untouched payload, and sends many datagrams per
// call (UDP_SEGMENT, sendmmsg); on the way back it takes coalesced datagrams
// (UDP_GRO, recvmmsg) and gives runs of segments to the TUN as one super-packet.
// Payload is never copied in this process.
//
// What a capture shows: between virtual devices the kernel leaves a UDP_SEGMENT
// send in one piece, so a capture on a veth shows datagrams of up to 64 kB that
// hold several inner packets, as it shows TSO super-packets of plain TCP. They
// become ordinary datagrams, each at most the device's MTU plus 28 bytes, where
// they leave the last device that can segment.
package udptun
