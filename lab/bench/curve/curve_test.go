package curve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
)

// tiny are options of a curve that takes seconds, with labs in a directory of
// their own.
func tiny(t *testing.T, name string) Options {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	t.Setenv(lab.StateDirEnv, t.TempDir())
	return Options{Name: name, Rounds: 1, Duration: 300 * time.Millisecond, WarmUp: 20 * time.Millisecond, Budget: time.Minute, Seed: 1, Version: "test"}
}

// measured runs a curve and checks that nothing is left of it.
func measured(t *testing.T, o Options) *report.Report {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
	return r
}

func nothingLeft(t *testing.T) {
	t.Helper()
	names, err := netns.Names(fmt.Sprintf("slipway-bench-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	labs, err := lab.Names()
	if err != nil {
		t.Fatal(err)
	}
	if len(names)+len(labs) > 0 {
		t.Errorf("the bench left the namespaces %v and the labs %v", names, labs)
	}
}

// of is a metric's median.
func of(t *testing.T, r *report.Report, variant, workload, path, param, metric string) float64 {
	t.Helper()
	for _, s := range r.Series {
		if s.Variant != variant || s.Workload != workload || s.Path != path || !slices.Contains(valuesOf(s.Params), param) {
			continue
		}
		for _, m := range s.Metrics {
			if m.Name == metric {
				return m.Summary.Median
			}
		}
	}
	t.Fatalf("the report has no %s of %s %s, %s at %s", metric, workload, path, variant, param)
	return 0
}

func valuesOf(m map[string]string) (out []string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func TestServices(t *testing.T) {
	testnet.Need(t, "iptables-legacy", "iptables-nft", testnet.NFT)
	o := tiny(t, "services")
	o.Points, o.Lines = []int{1, 50}, backendNames()
	r := measured(t, o)
	for _, line := range o.Lines {
		one, many := of(t, r, line, "rules", "", "1", rules), of(t, r, line, "rules", "", "50", rules)
		// Each service more has at least one rule to find it and one for each endpoint,
		// or in nftables an element to find it and a rule with a map of all of them.
		each := map[string]float64{"iptables-legacy": 1 + serviceEndpoints, "iptables-nft": 1 + serviceEndpoints, "nftables": 2}[line]
		if many-one < 49*each {
			t.Errorf("%s: %v rules for one service, %v for 50", line, one, many)
		}
		for _, m := range []string{loaded, changed} {
			if of(t, r, line, "rules", "", "50", m) <= 0 {
				t.Errorf("%s: %s is not there", line, m)
			}
		}
		p50, p99 := of(t, r, line, load.TCPConnects, "other-node", "50", load.ConnectP50), of(t, r, line, load.TCPConnects, "other-node", "50", load.ConnectP99)
		if p50 <= 0 || p50 > p99 {
			t.Errorf("%s: connecting took %v, %v at the 99th percentile", line, p50, p99)
		}
	}
}

func TestPods(t *testing.T) {
	o := tiny(t, "pods")
	o.Points, o.Lines = []int{12}, []string{"flannel-host-gw"}
	r := measured(t, o)
	if of(t, r, o.Lines[0], "pods", "", "12", plugged) <= 0 || of(t, r, o.Lines[0], "pods", "", "12", daemonMemory) < 1<<20 {
		t.Error("plugging pods in took no time, or the daemon no memory")
	}
	for _, path := range []string{"same-node", "other-node"} {
		if p50 := of(t, r, o.Lines[0], load.TCPRequests, path, "12", load.P50); p50 <= 0 {
			t.Errorf("a request took %v", p50)
		}
	}
}

func TestBGP(t *testing.T) {
	o := tiny(t, "bgp")
	o.Points = []int{4}
	r := measured(t, o)
	// In a full mesh each two have a session: 4·3/2. Each of 2 reflectors has one
	// with each of the 2 others, and they have one with each other.
	for line, want := range map[string]float64{fullMesh: 6, reflectors: 5} {
		if got := of(t, r, line, "bgp", "", "4", sessions); got != want {
			t.Errorf("%s of 4 speakers: %v sessions, want %v", line, got, want)
		}
		// Each node has a route to the block of each other.
		if have, lack := of(t, r, line, "bgp", "", "4", kernelRoutes), of(t, r, line, "bgp", "", "4", missing); have != 4*3 || lack != 0 {
			t.Errorf("%s of 4 nodes: %v routes, %v missing", line, have, lack)
		}
		if of(t, r, line, "bgp", "", "4", speakerPage) < 1<<20 {
			t.Errorf("%s: a speaker takes less than a megabyte", line)
		}
	}
}

func TestDelay(t *testing.T) {
	o := tiny(t, "delay")
	o.Points, o.Lines = []int{0, 5}, []string{"64KiB", "1MiB"}
	r := measured(t, o)
	for _, line := range o.Lines {
		if rtt := of(t, r, line, load.TCPStream, "other-node", "5ms", roundTrip); rtt < 0.010 {
			t.Errorf("a round trip over twice 5 ms took %v s", rtt)
		}
	}
	// A window in each round trip is all that a connection can carry; the window is
	// read now and then, the round trip before.
	if used := of(t, r, "64KiB", load.TCPStream, "other-node", "5ms", ofBound); used < 0.3 || used > 1.15 {
		t.Errorf("64 KiB over 5 ms carried %v of what window and round trip allow", used)
	}
	small, large := of(t, r, "64KiB", load.TCPStream, "other-node", "5ms", load.Throughput), of(t, r, "1MiB", load.TCPStream, "other-node", "5ms", load.Throughput)
	if large < 2*small {
		t.Errorf("over 5 ms a buffer of 64 KiB carried %v bit/s, of 1 MiB %v", small, large)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.HasPrefix(n, "5 ms: delay 5ms (") }) {
		t.Errorf("nobody says what delays: %q", r.Notes)
	}
}

func TestSize(t *testing.T) {
	o := tiny(t, "size")
	o.Points, o.Lines = []int{64, 1450, 1500}, []string{"flannel-udp/simple", "flannel-vxlan"}
	r := measured(t, o)
	for _, line := range o.Lines {
		packets, bits := of(t, r, line, load.UDPPackets, "other-node", "1450B", load.PacketRate), of(t, r, line, load.UDPPackets, "other-node", "1450B", load.Throughput)
		if packets <= 0 || bits != packets*(1450-20-8)*8 {
			t.Errorf("%s: %v packets of 1450 bytes carried %v bit/s", line, packets, bits)
		}
	}
	for _, s := range r.Series {
		if s.Variant == "flannel-vxlan" && s.Params["packet"] == "1500B" {
			t.Error("packets larger than the MTU of 1450 were sent")
		}
	}
}

// cancelAt ends a bench when a phase begins that is called so.
type cancelAt struct {
	phase  string
	cancel func()
}

func (c cancelAt) Phase(name string, _ int) {
	if strings.Contains(name, c.phase) {
		c.cancel()
	}
}

func (cancelAt) Step() {}

func TestInterruptedLeavesNothing(t *testing.T) {
	for name, phase := range map[string]string{"size": "lab of flannel-vxlan", "pods": "round 1", "services": "round 1", "bgp": "round 1"} {
		o := tiny(t, name)
		if name != "size" {
			o.Points = []int{3}
		}
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = cancelAt{phase, cancel}
		if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, interrupted at %q, ended with %v", name, phase, err)
		}
		cancel()
		nothingLeft(t)
	}
}

func TestBudgetEndsWithWholeRounds(t *testing.T) {
	o := tiny(t, "services")
	o.Points, o.Lines, o.Rounds, o.Budget = []int{1}, []string{"iptables-legacy"}, 1000, 2*time.Second
	r := measured(t, o)
	if n := len(r.Series[0].Metrics[0].Rounds); n == 0 || n >= 1000 {
		t.Errorf("%d rounds in two seconds", n)
	}
	if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "the time of 2s was used up") }) {
		t.Errorf("nobody says that rounds were left out: %q", r.Warnings)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Name: "nodes"}, `curve "nodes" is not one of services, pods, bgp, delay, size`},
		{Options{Name: "services", Lines: []string{"ipvs"}}, `backend "ipvs" is not one of`},
		{Options{Name: "pods", Points: []int{0}}, "0 pods on a node: they are 1 to"},
		{Options{Name: "delay", Lines: []string{"64K"}}, `buffer "64K" is not a size`},
		{Options{Name: "size", Points: []int{64, 64}}, "named twice"},
		{Options{Name: "size", Lines: []string{"flannel-udp/quick"}}, "is not one of flannel-udp"},
		{Options{Name: "pods", Lines: []string{"calico-bgp/ebpf"}}, "is not one of flannel-udp"},
	} {
		var wrong *OptionError
		if err := c.o.Fill(); !errors.As(err, &wrong) || !strings.Contains(wrong.Detail, c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}
