package demo

import (
	"context"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/bench"
	"slipway/lab/bench/load"
	"slipway/topology"
)

// requestSize is the payload of a latency request and of its answer, in bytes:
// one byte each, as netperf's TCP_RR has by default.
const requestSize = 1

// measure runs the rounds interleaved over the modes, A B C D E A B C …, so
// that what else the machine does falls on all of them alike.
func measure(ctx context.Context, o Options, res *Result) error {
	var err error
	if res.Conditions, err = bench.ReadConditions(); err != nil {
		return err
	}
	res.Conditions.WriteSize = res.WriteSize
	for round := range o.Rounds {
		for _, m := range res.Modes {
			if err := ctx.Err(); err != nil {
				return err
			}
			o.Show.Bench(round+1, o.Rounds, m.Mode)
			if err := m.round(ctx, o, res.WriteSize); err != nil {
				return err
			}
		}
	}
	plain := control(res.Modes)
	for _, m := range res.Modes {
		m.Throughput, m.P50, m.P99 = bench.Summarize(m.rates), bench.Summarize(m.p50s), bench.Summarize(m.p99s)
		if plain != nil {
			m.Ratio = bench.Summarize(ratios(m.rates, plain.rates))
		}
	}
	return res.Conditions.Finish()
}

// control is the first mode that encapsulates nothing.
func control(modes []*ModeResult) *ModeResult {
	for _, m := range modes {
		if m.Mode.Overhead() == 0 {
			return m
		}
	}
	return nil
}

func ratios(a, b []float64) []float64 {
	out := make([]float64, 0, len(a))
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}

func (m *ModeResult) round(ctx context.Context, o Options, writeSize int) error {
	st, err := lab.ReadState(m.Lab)
	if err != nil {
		return err
	}
	from, to, _, err := actors(st.Snapshot)
	if err != nil {
		return err
	}
	client, err := endpoint(m.Lab, from)
	if err != nil {
		return err
	}
	defer client.NS.Close() //nolint:errcheck // read-only descriptor
	server, err := endpoint(m.Lab, to)
	if err != nil {
		return err
	}
	defer server.NS.Close() //nolint:errcheck // read-only descriptor
	s, err := load.Native{}.Run(ctx, load.Job{Workload: load.TCPStream, Client: client, Server: server, Duration: o.Stream, Write: writeSize})
	if err != nil {
		return err
	}
	m.rates = append(m.rates, s[load.Throughput])
	r, err := load.Native{}.Run(ctx, load.Job{Workload: load.TCPRequests, Client: client, Server: server, Duration: o.Request, Size: requestSize})
	if err != nil {
		return err
	}
	m.p50s = append(m.p50s, r[load.P50])
	m.p99s = append(m.p99s, r[load.P99])
	return nil
}

func endpoint(labName string, p topology.Pod) (load.Place, error) {
	ns, err := netns.Open(lab.NSOfPod(labName, p.Key()))
	return load.Place{NS: ns, Addr: p.Address, Label: p.Key()}, err
}
