package load

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/testnet"
)

func TestIperf3(t *testing.T) {
	testnet.Need(t, testnet.IPerf3)
	client, server := wired(t)
	const wire = 5_000_000 // bytes a second
	limit(t, client, wire, 32<<20)
	run := func(j Job) Figures {
		j.Client, j.Server, j.Duration = client, server, time.Second
		f, err := Iperf3{}.Run(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v", f)
		return f
	}
	f := run(Job{Workload: TCPStream, Streams: 2, WarmUp: time.Second})
	mayCarry(t, f, wire)
	if f[Fairness] <= 0.5 || f[Fairness] > 1 {
		t.Errorf("fairness %v", f[Fairness])
	}
	filtered(t, server, every10th...)
	f = run(Job{Workload: UDPStream, Rate: 8e6, Size: 1000})
	near(t, f, Loss, 0.1, 0.2)
	near(t, f, PacketRate, f[PacketsSent]*(1-f[Loss]), 0.01)
	near(t, f, Offered, f[PacketsSent]*1000*8, 0.01)
	if f[Offered] > 8e6*1.05 { // on a busy machine it may not come to it
		t.Errorf("%v bit/s were offered, want 8e6", f[Offered])
	}
	// Of the wire's bytes a second each small datagram takes 14 of Ethernet, 28 of
	// IP and UDP, and itself.
	f = run(Job{Workload: UDPPackets, Size: 200})
	if f[PacketRate] <= 0 || f[PacketRate] > 1.2*wire/(14+28+200) {
		t.Errorf("%v datagrams a second arrived over a wire for %v", f[PacketRate], wire/(14+28+200))
	}
}

func TestIperf3Rounds(t *testing.T) {
	got := wholeSeconds(Job{Duration: 1500 * time.Millisecond, WarmUp: 200 * time.Millisecond})
	if got.Duration != 2*time.Second || got.WarmUp != time.Second {
		t.Errorf("%+v", got)
	}
	if got := wholeSeconds(Job{Duration: time.Second}); got.Duration != time.Second || got.WarmUp != 0 {
		t.Errorf("%+v", got)
	}
}

func TestIperf3SaysWhatItCannot(t *testing.T) {
	testnet.Need(t, testnet.IPerf3)
	client, server := wired(t)
	_, err := Iperf3{}.Run(t.Context(), Job{Workload: TCPRequests, Client: client, Server: server, Duration: time.Second})
	if err == nil || !strings.Contains(err.Error(), "cannot run it, only tcp-stream, udp-stream, udp-pps") {
		t.Errorf("requests by iperf3 gave %v", err)
	}
	server.Addr = client.Addr // an address that the server does not have
	_, err = Iperf3{}.Run(t.Context(), Job{Workload: TCPStream, Client: client, Server: server, Duration: time.Second})
	if err == nil || !strings.Contains(err.Error(), "serve at server") {
		t.Errorf("a server without its address gave %v", err)
	}
}

// BenchmarkAgainstIperf3 measures one veth pair with the generator and with
// iperf3, in turn, in writes of the same size. Each iteration is one round of
// both, every other one in the other order. Beside the ratio of what they carry
// stands that of the CPU time that they need for as much, which depends less on
// what else the machine does. Both are medians of the rounds' own.
func BenchmarkAgainstIperf3(b *testing.B) {
	testnet.Need(b, testnet.IPerf3)
	client, server := wired(b)
	j := Job{Workload: TCPStream, Client: client, Server: server, WarmUp: time.Second, Duration: time.Second}
	for _, streams := range []int{1, 4} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			j.Streams = streams
			var ours, theirs, ratios, costs []float64
			for i := 0; b.Loop(); i++ {
				var o, t [2]float64
				if i%2 == 0 {
					o, t = carried(b, Native{}, unix.RUSAGE_SELF, j), carried(b, Iperf3{}, unix.RUSAGE_CHILDREN, j)
				} else {
					t, o = carried(b, Iperf3{}, unix.RUSAGE_CHILDREN, j), carried(b, Native{}, unix.RUSAGE_SELF, j)
				}
				ours, theirs = append(ours, o[0]), append(theirs, t[0])
				ratios, costs = append(ratios, o[0]/t[0]), append(costs, o[1]/t[1])
			}
			b.Logf("ours %.1f Gbit/s, iperf3 %.1f Gbit/s, ratios %.2f, of CPU time for as much %.2f", ours, theirs, ratios, costs)
			b.ReportMetric(median(ours), "Gbit/s")
			b.ReportMetric(median(theirs), "iperf3-Gbit/s")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(costs), "cpu-ratio")
		})
	}
}

// carried is what a runner carries, in Gbit/s, and the CPU time that it needs for
// a gigabit, in seconds, as rusage has it of this process or its children.
func carried(b *testing.B, r Runner, who int, j Job) [2]float64 {
	b.Helper()
	used := func() float64 {
		var r unix.Rusage
		if err := unix.Getrusage(who, &r); err != nil {
			b.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
	}
	before := used()
	f, err := r.Run(b.Context(), j)
	if err != nil {
		b.Fatal(err)
	}
	rate := f[Throughput] / 1e9
	return [2]float64{rate, (used() - before) / (rate * (j.WarmUp + j.Duration).Seconds())}
}

func median[T cmp.Ordered](all []T) T { return slices.Sorted(slices.Values(all))[len(all)/2] }
