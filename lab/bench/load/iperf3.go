package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/run"
)

// Iperf3 runs tcp-stream, udp-stream and udp-pps by the program of that name,
// which has to be installed.
type Iperf3 struct{}

// Workloads are what iperf3 can run: it has no requests and answers.
func (Iperf3) Workloads() []string { return []string{TCPStream, UDPStream, UDPPackets} }

// wholeSeconds is the job as iperf3 runs it: times are rounded up.
func wholeSeconds(j Job) Job {
	up := func(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }
	j.Duration, j.WarmUp = up(j.Duration), up(j.WarmUp)
	return j
}

// iperfPort is where iperf3 listens by default (its -p).
const iperfPort = 5201

// iperfOverhead bounds what a run takes beside its measurement.
const iperfOverhead = 10 * time.Second

// iperfRetry is how long to wait for the server before asking again.
const iperfRetry = 10 * time.Millisecond

// Run runs one job. iperf3 measures whole seconds: times are rounded up.
func (i Iperf3) Run(ctx context.Context, j Job) (Figures, error) {
	p, err := wholeSeconds(j).prepared()
	if can := i.Workloads(); err == nil && !slices.Contains(can, j.Workload) {
		err = fmt.Errorf("iperf3 cannot run it, only %s", strings.Join(can, ", "))
	}
	var f Figures
	if err == nil {
		f, err = iperf(ctx, p)
	}
	if err != nil {
		return nil, fmt.Errorf("%s by iperf3 from %s to %s: %w", j.Workload, j.Client.Label, j.Server.Label, err)
	}
	return f, nil
}

// iperf runs a server for one test, and the test.
func iperf(ctx context.Context, j Job) (Figures, error) {
	if j.Port == 0 {
		j.Port = iperfPort
	}
	ctx, cancel := context.WithTimeout(ctx, j.WarmUp+j.Duration+iperfOverhead)
	defer cancel()
	serving, stop := context.WithCancel(ctx)
	asking, giveUp := context.WithCancel(ctx)
	defer giveUp()
	ended := make(chan error, 1)
	go func() {
		_, err := run.Cmd{NS: j.Server.NS, Name: "iperf3", Args: []string{"-s", "-1", "-J", "-B", j.Server.Addr.String(), "-p", strconv.Itoa(int(j.Port))}}.Output(serving)
		if serving.Err() != nil {
			err = nil // was stopped
		}
		if err != nil {
			giveUp()
		}
		ended <- err
	}()
	out, err := askIperf(asking, j)
	stop()
	if e := <-ended; e != nil { // the cause of what the client saw
		err = fmt.Errorf("serve at %s: %w", j.Server.Label, e)
	}
	if err != nil {
		return nil, err
	}
	return out.figures(j)
}

// askIperf runs the client again until the server listens.
func askIperf(ctx context.Context, j Job) (*iperfReport, error) {
	until := time.Now().Add(connectTimeout)
	for {
		out, err := run.Cmd{NS: j.Client.NS, Name: "iperf3", Args: iperfArgs(j)}.Output(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		report := &iperfReport{}
		if e := json.Unmarshal(out, report); e != nil {
			return nil, errors.Join(err, fmt.Errorf("read its report: %w", e))
		}
		switch {
		case report.Error == "" && err == nil:
			return report, nil
		case report.Error == "":
			return nil, err
		case time.Now().After(until):
			return nil, errors.New(report.Error)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(iperfRetry):
		}
	}
}

func iperfArgs(j Job) []string {
	to := j.target(j.Port)
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
	args := []string{
		"-J", "-c", to.Addr().String(), "-p", strconv.Itoa(int(to.Port())),
		"-t", seconds(j.Duration), "-O", seconds(j.WarmUp), "-P", strconv.Itoa(j.Streams),
	}
	if j.Client.Addr.IsValid() {
		args = append(args, "-B", j.Client.Addr.String())
	}
	if j.Workload == TCPStream {
		return append(args, "-l", strconv.Itoa(j.Write))
	}
	args = append(args, "-u", "-b", strconv.FormatInt(int64(j.Rate), 10)) // 0 is as fast as it goes
	if j.Size > 0 {
		args = append(args, "-l", strconv.Itoa(j.Size))
	}
	return args
}

// iperfReport is what iperf3 -J says, as far as it is needed (iperf3 3.12,
// src/iperf_api.c, JSON_printf).
type iperfReport struct {
	Error string `json:"error"`
	Start struct {
		MSS int `json:"tcp_mss_default"`
	} `json:"start"`
	End struct {
		Streams []struct {
			Receiver iperfSum `json:"receiver"`
		} `json:"streams"`
		Sum      iperfSum `json:"sum"`
		Sent     iperfSum `json:"sum_sent"`
		Received iperfSum `json:"sum_received"`
	} `json:"end"`
}

type iperfSum struct {
	Bytes         float64 `json:"bytes"`
	Seconds       float64 `json:"seconds"`
	BitsPerSecond float64 `json:"bits_per_second"`
	Retransmits   float64 `json:"retransmits"`
	JitterMs      float64 `json:"jitter_ms"`
	Lost          float64 `json:"lost_packets"`
	Packets       float64 `json:"packets"`
}

func (r *iperfReport) figures(j Job) (Figures, error) {
	if j.Workload != TCPStream {
		return r.End.Sum.datagrams(j)
	}
	received := r.End.Received.BitsPerSecond
	if received == 0 {
		return nil, fmt.Errorf("nothing arrived at %s in %v", j.Server.Label, j.Duration)
	}
	f := Figures{Throughput: received, Retransmits: r.End.Sent.Retransmits, MSS: float64(r.Start.MSS)}
	if n := len(r.End.Streams); n > 1 {
		var sum, squares float64
		slowest := math.Inf(1)
		for _, s := range r.End.Streams {
			bits := s.Receiver.BitsPerSecond
			sum += bits
			squares += bits * bits
			slowest = min(slowest, bits)
		}
		f[Slowest], f[Fairness] = slowest, sum*sum/(float64(n)*squares)
	}
	return f, nil
}

// datagrams reads the sums of a UDP test: packets and bytes are those sent, lost
// is what of them the receiver missed.
func (s iperfSum) datagrams(j Job) (Figures, error) {
	if s.Packets == 0 || s.Seconds == 0 || s.Lost >= s.Packets {
		return nil, fmt.Errorf("nothing arrived at %s in %v", j.Server.Label, j.Duration)
	}
	arrived := 1 - s.Lost/s.Packets
	return Figures{
		Offered: s.Bytes * 8 / s.Seconds, Throughput: s.Bytes * 8 / s.Seconds * arrived,
		PacketsSent: s.Packets / s.Seconds, PacketRate: s.Packets / s.Seconds * arrived,
		Loss: 1 - arrived, Jitter: s.JitterMs / 1e3,
	}, nil
}
