package udptun

import "sync/atomic"

// DropReason says why a packet went no further.
type DropReason int

// The reasons for drops.
const (
	dropNone         DropReason = iota
	dropMalformed               // not one whole IPv4 packet
	dropNotIPv4                 // the version field says otherwise
	dropTTL                     // the TTL would have reached zero
	dropNoLease                 // no lease covers the destination
	dropSend                    // the kernel refused the datagram
	dropDeviceWrite             // the kernel refused the packet on the TUN
	dropOffload                 // an offload that this package did not ask for
	dropReasonsCount int        = iota
)

var dropNames = [dropReasonsCount]string{"", "malformed", "not-ipv4", "ttl", "no-lease", "send", "device-write", "offload"}

// String is the reason's name in [Stats].
func (r DropReason) String() string { return dropNames[r] }

// Stats counts what a tunnel did since it was opened.
type Stats struct {
	Encapsulated Flow // TUN to UDP
	Decapsulated Flow // UDP to TUN
	// Drops counts packets by the reason's name: malformed, not-ipv4, ttl,
	// no-lease, send, device-write, offload. Reasons that never happened are absent.
	Drops map[string]uint64
	// Unreachables counts ICMP net unreachable messages sent.
	Unreachables uint64
	// Parks counts how often a direction began to wait for packets.
	Parks uint64
}

// Flow counts one direction.
type Flow struct {
	Packets  uint64 // inner IP packets as on the wire, one per segment
	Bytes    uint64 // of these packets
	Syscalls uint64 // reads and writes, those that found nothing included
}

type flowCounters struct {
	packets, bytes, syscalls atomic.Uint64
	_                        [40]byte // the directions run on different processors
}

func (f *flowCounters) flow() Flow {
	return Flow{Packets: f.packets.Load(), Bytes: f.bytes.Load(), Syscalls: f.syscalls.Load()}
}

func (f *flowCounters) moved(packets, bytes int) {
	f.packets.Add(uint64(packets))
	f.bytes.Add(uint64(bytes))
}

type counters struct {
	encap, decap flowCounters
	drops        [dropReasonsCount]atomic.Uint64
	unreachables atomic.Uint64
	parks        atomic.Uint64
}

func (c *counters) drop(r DropReason, n int) { c.drops[r].Add(uint64(n)) }

func (c *counters) stats() Stats {
	s := Stats{
		Encapsulated: c.encap.flow(), Decapsulated: c.decap.flow(), Drops: map[string]uint64{},
		Unreachables: c.unreachables.Load(), Parks: c.parks.Load(),
	}
	for r := range c.drops {
		if n := c.drops[r].Load(); n > 0 {
			s.Drops[DropReason(r).String()] = n
		}
	}
	return s
}
