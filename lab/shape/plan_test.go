package shape

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"slipway/topology"
)

// Which implementation runs for which property, by what the kernel has.
func TestPlan(t *testing.T) {
	seg := topology.Segment{Name: "rack1", MTU: 1500, Rate: 1e9, Delay: topology.Duration(time.Millisecond), Loss: 1}
	tests := []struct {
		name     string
		sup      Support
		down, up Report
		relay    bool
	}{
		{"all", Support{Netem: true, TBF: true, BPF: true, TAP: true}, Report{Rate: Netem, Delay: Netem, Loss: Netem}, Report{Rate: TBF}, false},
		{"netem alone", Support{Netem: true}, Report{Rate: Netem, Delay: Netem, Loss: Netem}, Report{Rate: Netem}, false},
		{"no netem", Support{TBF: true, BPF: true, TAP: true}, Report{Rate: TBF, Delay: Tap, Loss: BPF}, Report{Rate: TBF}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			down, err := planDown(seg, tt.sup)
			if err != nil {
				t.Fatal(err)
			}
			up, err := planUp(seg, tt.sup)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Report{tt.down, tt.up}, []Report{down.Report, up.Report}); diff != "" {
				t.Errorf("down and up (-want +got):\n%s", diff)
			}
			if got := NeedsRelay(seg, tt.sup); got != tt.relay {
				t.Errorf("needs a relay: %v, want %v", got, tt.relay)
			}
			if n, ok := up.qdisc.(*netlink.Netem); ok && (n.Latency != 0 || n.Loss != 0) {
				t.Errorf("the way up delays or loses: %+v", n)
			}
		})
	}
}

func TestTBFHoldsWhatIsSent(t *testing.T) {
	// A GSO packet of 64 KiB with the headers of its 45 segments.
	const gso = 1<<16 + 45*(ethernetHeader+40)
	tests := []struct {
		rate  topology.Rate
		mtu   int
		burst uint64 // least bytes
	}{
		{1e6, 1500, 2 * 1514}, // two frames: 4 ms would be 500 bytes
		{1e6, 9000, 2 * 9014},
		{150e6, 1500, gso},
		{1e9, 1500, gso},
		{100e9, 1500, gso}, // more than 32 bits of byte/s
	}
	for _, tt := range tests {
		q := newTBF(topology.Segment{MTU: tt.mtu, Rate: tt.rate})
		if q.Rate != uint64(tt.rate)/8 {
			t.Errorf("rate %d: told %d byte/s", tt.rate, q.Rate)
		}
		// As the kernel turns it back (psched_ns_t2l): time times rate.
		burst := uint64(q.Buffer) << ticksShift * (q.Rate / 1000) / 1_000_000
		if burst < tt.burst {
			t.Errorf("rate %d, MTU %d: burst of %d bytes, want at least %d", tt.rate, tt.mtu, burst, tt.burst)
		}
		if burst > 2*max(tt.burst, q.Rate*4/1000) {
			t.Errorf("rate %d, MTU %d: burst of %d bytes is more than is needed", tt.rate, tt.mtu, burst)
		}
		if uint64(q.Limit) < burst+minQueueBytes {
			t.Errorf("rate %d: queue of %d bytes", tt.rate, q.Limit)
		}
	}
}

// The queue keeps the order over its growth and wrapping, and its bound.
func TestQueue(t *testing.T) {
	q := newQueue()
	next, taken := 0, 0
	put := func(k int) {
		for range k {
			if !q.put(frame{n: next, small: new([smallFrame]byte)}) {
				t.Fatalf("full after %d frames", next-taken)
			}
			next++
		}
	}
	take := func(k int) {
		for range k {
			f, ok := q.take()
			if !ok || f.n != taken {
				t.Fatalf("took %d, %v; want %d", f.n, ok, taken)
			}
			taken++
		}
	}
	put(50)
	take(30)
	put(200)
	take(100)
	put(500)
	take(next - taken)
	if _, ok := q.take(); ok {
		t.Error("took a frame out of an empty queue")
	}
	held := 0
	for q.put(frame{large: new([maxFrame]byte)}) {
		held += maxFrame
		if held > maxQueued {
			t.Fatalf("the queue took %d bytes", held)
		}
	}
	if held < maxQueued-maxFrame {
		t.Errorf("full at %d bytes of %d", held, maxQueued)
	}
}
