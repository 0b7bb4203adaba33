package load

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStreamCountsWhatTheDeviceCounts(t *testing.T) {
	client, server := wired(t)
	before, _ := received(t, server)
	start := time.Now()
	f := measure(t, Job{Workload: TCPStream, Client: client, Server: server, Duration: 500 * time.Millisecond})
	took := time.Since(start).Seconds()
	after, _ := received(t, server)
	// What the stream says went on for half a second is less than all that the
	// device saw, and at least what it saw spread over the time of the whole.
	wire := (after - before) * 8
	if most, least := wire/0.5, wire*(1448.0/1514)/took*0.95; f[Throughput] > most || f[Throughput] < least {
		t.Errorf("the stream says %.0f bit/s, the device between %.0f and %.0f", f[Throughput], least, most)
	}
	if f[MSS] != 1448 || f[PathMTU] != 1500 { // less IP 20 and TCP with time stamps 32
		t.Errorf("MSS %v with path MTU %v, want 1448 and 1500", f[MSS], f[PathMTU])
	}
}

// A wire of a known rate gives that rate, less the headers. Four streams share it.
func TestStreamsOverLimitedWire(t *testing.T) {
	client, server := wired(t)
	const wire = 5_000_000 // bytes a second
	// So deep a queue that nothing is lost: what is held back behind a lost
	// segment would be received in bursts.
	limit(t, client, wire, 32<<20)
	for _, n := range []int{1, 4} {
		f := measure(t, Job{Workload: TCPStream, Client: client, Server: server, Streams: n, WarmUp: 300 * time.Millisecond, Duration: time.Second})
		mayCarry(t, f, wire)
		if _, there := f[Fairness]; there != (n > 1) {
			t.Errorf("%d streams have fairness %v (there: %v)", n, f[Fairness], there)
		}
	}
}

func TestFairness(t *testing.T) {
	one := func(bytes int64) stream { return stream{bytes: bytes, took: time.Second} }
	for _, c := range []struct {
		streams []stream
		want    float64
	}{
		{[]stream{one(5), one(5), one(5)}, 1},
		{[]stream{one(7), one(0)}, 0.5},
		{[]stream{one(3), one(1)}, 16.0 / 20}, // (3+1)² / (2·(9+1))
	} {
		for i := range c.streams {
			c.streams[i].info = new(unix.TCPInfo)
		}
		f, err := streamFigures(c.streams, Job{})
		if err != nil || f[Fairness] != c.want {
			t.Errorf("%v bytes: fairness %v, %v, want %v", c.streams, f[Fairness], err, c.want)
		}
	}
}
