package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/internal/testnet"
)

// BenchmarkAgainstIperf3 measures one veth pair with our generator and with
// iperf3, in turn, in writes of the same size, and reports both in Gbit/s and
// their ratio, and the ratio of what each carries in a second of its own CPU
// time, which other work on the machine disturbs less. Each iteration is one
// round of both.
func BenchmarkAgainstIperf3(b *testing.B) {
	testnet.Need(b, testnet.Root)
	if _, err := exec.LookPath("iperf3"); err != nil {
		b.Skip("needs iperf3")
	}
	client, server := wired(b)
	const seconds = 1
	var ours, theirs, perCPU []float64
	for b.Loop() {
		before := cpuSeconds(b)
		s, err := Stream(b.Context(), client, server, seconds*time.Second, DefaultWriteSize)
		if err != nil {
			b.Fatal(err)
		}
		ours = append(ours, s.BitsPerSecond/1e9)
		used := (cpuSeconds(b) - before) / s.Duration.Seconds()
		bits, cpus := iperf3(b, client, server, seconds)
		theirs = append(theirs, bits/1e9)
		perCPU = append(perCPU, (s.BitsPerSecond/used)/(bits/cpus))
	}
	o, t := Summarize(ours), Summarize(theirs)
	b.Logf("ours %s Gbit/s, iperf3 %s Gbit/s", o.Format(1, 1), t.Format(1, 1))
	b.ReportMetric(o.Median, "Gbit/s")
	b.ReportMetric(t.Median, "iperf3-Gbit/s")
	b.ReportMetric(o.Median/t.Median, "ratio")
	b.ReportMetric(Summarize(perCPU).Median, "ratio-per-CPU-s")
}

// cpuSeconds is what this process has used so far.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// iperf3 runs one test and returns the receiver's bits per second, and how many
// CPUs sender and receiver kept busy.
func iperf3(b *testing.B, client, server Endpoint, seconds int) (bits, cpus float64) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "iperf3", "-s", "-1", "-B", server.Addr.String())
	if err := server.NS.Do(cmd.Start); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // ends after one test
	args := []string{"-c", server.Addr.String(), "-J", "-t", fmt.Sprint(seconds), "-l", fmt.Sprint(DefaultWriteSize)}
	var report struct {
		End struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			CPU struct {
				Host   float64 `json:"host_total"`
				Remote float64 `json:"remote_total"`
			} `json:"cpu_utilization_percent"`
		} `json:"end"`
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C { // until the server listens; with -J a refused connection is no failure to iperf3 3.12
		out, err := run.Cmd{NS: client.NS, Name: "iperf3", Args: args}.Output(ctx)
		if ctx.Err() != nil {
			b.Fatalf("iperf3: %v:\n%s", ctx.Err(), out)
		}
		if err == nil {
			err = json.Unmarshal(out, &report)
		}
		if err == nil && report.End.SumReceived.BitsPerSecond > 0 {
			return report.End.SumReceived.BitsPerSecond, (report.End.CPU.Host + report.End.CPU.Remote) / 100
		}
	}
}
