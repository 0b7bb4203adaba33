package shape

import (
	"time"

	"github.com/vishvananda/netlink"

	"slipway/topology"
)

// rootHandle marks the root qdiscs that this package makes.
var rootHandle = netlink.MakeHandle(0x5117, 0)

const (
	// burstTime is how long tbf may send at full speed after a pause. From 140
	// Mbit/s on the burst then holds a 64 KiB GSO packet with the headers of its
	// segments, and the kernel passes it whole; below, it cuts it into segments
	// (net/sched/sch_tbf.c, tbf_enqueue), which costs little at such rates. The
	// excess over the rate is 0.4 % of the first second.
	burstTime = 4 * time.Millisecond
	// minBurstFrames is the least burst: with less than a frame nothing passes,
	// with one the token bucket overflows while it waits.
	minBurstFrames = 2
	// queueTime is how long a packet may wait in a full queue, tc's usual 50 ms.
	queueTime = 50 * time.Millisecond
	// minQueueBytes lets one GSO packet, cut into segments, queue at any rate.
	minQueueBytes = 70 << 10
	// netemPackets is netem's queue where the rate is not limited: 10 Gbit/s of
	// full Ethernet frames for 24 ms.
	netemPackets = 20000

	ethernetHeader = 14 // bytes that qdiscs count on top of the MTU
	minFrame       = 64
	// ticksShift turns nanoseconds into the ticks of tc's user interface
	// (include/net/pkt_sched.h, PSCHED_SHIFT).
	ticksShift = 6
)

// bytesPerSecond is the unit in which qdiscs are told rates.
func bytesPerSecond(r topology.Rate) uint64 { return max(uint64(r)/8, 1) }

// during is how many bytes pass at a rate in a time.
func during(rate uint64, d time.Duration) uint64 {
	return uint64(float64(rate) * d.Seconds())
}

// newTBF limits the rate and nothing else. The rate is of Ethernet frames
// without preamble and checksum.
func newTBF(seg topology.Segment) *netlink.Tbf {
	rate := bytesPerSecond(seg.Rate)
	frame := uint64(seg.MTU + ethernetHeader)
	burst := max(during(rate, burstTime), minBurstFrames*frame)
	queue := max(during(rate, queueTime), minQueueBytes)
	return &netlink.Tbf{
		Rate:   rate,
		Limit:  uint32(min(burst+queue, 1<<31)),
		Buffer: ticks(burst, rate),
	}
}

// ticks is how long so many bytes take, in the unit of tc's user interface.
func ticks(bytes, rate uint64) uint32 {
	ns := float64(bytes) / float64(rate) * float64(time.Second)
	return uint32(min(uint64(ns)>>ticksShift+1, 1<<32-1))
}

// newNetem does all that the segment wants on the way down.
func newNetem(seg topology.Segment) *netlink.Netem {
	limit := uint32(netemPackets)
	var rate uint64
	if seg.Rate > 0 {
		rate = bytesPerSecond(seg.Rate)
		// What is under way counts too. Frames may be small.
		queue := during(rate, queueTime+time.Duration(seg.Delay)) + minQueueBytes
		limit = uint32(min(queue/minFrame, 1<<20))
	}
	return netlink.NewNetem(netlink.QdiscAttrs{}, netlink.NetemQdiscAttrs{
		Latency: uint32(time.Duration(seg.Delay).Microseconds()),
		Loss:    float32(seg.Loss),
		Limit:   limit,
		Rate64:  rate,
	})
}

// sameQdisc reports whether what is there does what is wanted.
func sameQdisc(have, want netlink.Qdisc) bool {
	switch w := want.(type) {
	case *netlink.Tbf:
		h, ok := have.(*netlink.Tbf)
		return ok && h.Rate == w.Rate && h.Limit == w.Limit && h.Buffer == w.Buffer
	case *netlink.Netem:
		h, ok := have.(*netlink.Netem)
		return ok && h.Latency == w.Latency && h.Loss == w.Loss && h.Limit == w.Limit && h.Rate64 == w.Rate64
	default:
		return false
	}
}
