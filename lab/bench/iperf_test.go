package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"slipway/internal/run"
	"slipway/internal/testnet"
)

// BenchmarkAgainstIperf3 measures one veth pair with our generator and with
// iperf3, in turn, in writes of the same size, and reports both in Gbit/s and
// their ratio. Each iteration is one round of both.
func BenchmarkAgainstIperf3(b *testing.B) {
	testnet.Need(b, testnet.Root)
	if _, err := exec.LookPath("iperf3"); err != nil {
		b.Skip("needs iperf3")
	}
	client, server := wired(b)
	const seconds = 1
	var ours, theirs []float64
	for b.Loop() {
		s, err := Stream(b.Context(), client, server, seconds*time.Second, DefaultWriteSize)
		if err != nil {
			b.Fatal(err)
		}
		ours = append(ours, s.BitsPerSecond/1e9)
		theirs = append(theirs, iperf3(b, client, server, seconds)/1e9)
	}
	o, t := Summarize(ours), Summarize(theirs)
	b.Logf("ours %s Gbit/s, iperf3 %s Gbit/s", o.Format(1, 1), t.Format(1, 1))
	b.ReportMetric(o.Median, "Gbit/s")
	b.ReportMetric(t.Median, "iperf3-Gbit/s")
	b.ReportMetric(o.Median/t.Median, "ratio")
}

// iperf3 runs one test and returns the receiver's bits per second.
func iperf3(b *testing.B, client, server Endpoint, seconds int) float64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "iperf3", "-s", "-1", "-B", server.Addr.String())
	if err := server.NS.Do(cmd.Start); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // ends after one test
	args := []string{"-c", server.Addr.String(), "-J", "-t", fmt.Sprint(seconds), "-l", fmt.Sprint(DefaultWriteSize)}
	var out []byte
	var err error
	for ctx.Err() == nil { // until the server listens
		if out, err = (run.Cmd{NS: client.NS, Name: "iperf3", Args: args}).Output(ctx); err == nil {
			break
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	var report struct {
		End struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		b.Fatal(err)
	}
	return report.End.SumReceived.BitsPerSecond
}
