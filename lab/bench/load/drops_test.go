package load

import (
	"testing"
	"time"

	"slipway/datapath/skbtrace"
)

// BenchmarkCountingDrops measures what counting drops by reason changes: rounds
// with and without it alternate, as do those without and without, for
// comparison. udp-pps loses packets at the receiver's socket, and so is where the
// counter has most to do.
func BenchmarkCountingDrops(b *testing.B) {
	client, server := wired(b)
	for _, w := range []struct{ name, main string }{{TCPStream, Throughput}, {UDPPackets, PacketRate}, {TCPConnects, Rate}} {
		b.Run(w.name, func(b *testing.B) {
			once := func(counting bool) float64 {
				if counting {
					d, err := skbtrace.CountDrops()
					if err != nil {
						b.Fatal(err)
					}
					defer d.Close() //nolint:errcheck // a benchmark
				}
				f, err := Native{}.Run(b.Context(), Job{Workload: w.name, Client: client, Server: server, WarmUp: 100 * time.Millisecond, Duration: 500 * time.Millisecond})
				if err != nil {
					b.Log(err) // a machine that is too busy
				}
				return f[w.main]
			}
			var ratios, none []float64
			for b.Loop() {
				without, with, again := once(false), once(true), once(false)
				if without == 0 || with == 0 || again == 0 {
					continue
				}
				ratios, none = append(ratios, 2*with/(without+again)), append(none, again/without)
			}
			if len(ratios) == 0 {
				b.Fatal("no round came about")
			}
			b.Logf("with ÷ without %.2f, without ÷ without %.2f", ratios, none)
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(none), "control-ratio")
		})
	}
}
