package report

import (
	"time"
)

// rounds are figures; a negative one stands for a round without.
func rounds(v ...float64) []*float64 {
	out := make([]*float64, len(v))
	for i, x := range v {
		if x >= 0 {
			out[i] = &x
		}
	}
	return out
}

// fixture is a small run: three variants on one path with eight rounds, of which
// one gave no latency, and a control with three rounds.
//
// host-gw's throughput is 40 Gbit/s give or take one. vxlan has exactly half of
// it in every round, so that its ratio is 0.50 whatever host-gw did. bgp has
// host-gw's figures in another order: no difference.
func fixture() *Report {
	series := func(variant string, mtu int, offloads string, throughput, latency []*float64) Series {
		return Series{
			Variant: variant, Workload: "tcp-stream", Path: "other-node", Target: "pod", Params: map[string]string{"write": "128KiB", "streams": "1"},
			MTU: mtu, Offloads: offloads,
			Metrics: []Metric{
				{Name: "throughput", Unit: "bit/s", Better: Higher, Rounds: throughput},
				{Name: "p99", Unit: "s", Better: Lower, Rounds: latency},
				{Name: "retransmits", Unit: "1", Better: Neither, Rounds: rounds(0, 0, 0, 1, 0, 0, 0, 0)},
			},
		}
	}
	r := &Report{
		Started: time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC), TookNs: int64(95 * time.Second),
		Conditions: Conditions{
			Slipway: "v0.4.0", Host: "box", Kernel: "6.18.0", CPU: "EPYC", CPUs: 2, MemoryByte: 8 << 30, Started: time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC),
			LoadBefore: 0.1, StealPercent: 0.4, IdlePercent: 12, Generator: "slipway",
		},
		Plan: Plan{
			Variants: []string{"flannel-vxlan", "flannel-host-gw", "calico-bgp"}, Workloads: []string{"tcp-stream"}, Paths: []string{"other-node"},
			Rounds: 8, MaxRounds: 20, RoundNs: int64(time.Second), WarmUpNs: int64(200 * time.Millisecond), Seed: 7,
		},
		Series: []Series{
			series("flannel-vxlan", 1450, "tso gso gro", rounds(20e9, 20.5e9, 19.5e9, 20.25e9, 19.75e9, 20e9, 20.1e9, 19.9e9), rounds(90e-6, 91e-6, -1, 93e-6, 95e-6, 99e-6, 90e-6, 92e-6)),
			series("flannel-host-gw", 1500, "tso gso gro", rounds(40e9, 41e9, 39e9, 40.5e9, 39.5e9, 40e9, 40.2e9, 39.8e9), rounds(80e-6, 81e-6, 82e-6, 83e-6, 85e-6, 89e-6, 80e-6, 82e-6)),
			series("calico-bgp", 1500, "tso gso gro", rounds(41e9, 40e9, 40.5e9, 39e9, 40e9, 39.5e9, 39.8e9, 40.2e9), rounds(81e-6, 80e-6, 83e-6, 82e-6, 89e-6, 85e-6, 82e-6, 80e-6)),
			{Variant: "loopback", Workload: "tcp-rr", Path: "loopback", MTU: 65536, Metrics: []Metric{
				{Name: "rate", Unit: "1/s", Better: Higher, Rounds: rounds(63_000, 61_500, 64_000)},
			}},
		},
		Notes: []string{"On one box TSO over veth flatters every mode: ratios hold."},
	}
	r.Conclude("flannel-host-gw")
	return r
}
