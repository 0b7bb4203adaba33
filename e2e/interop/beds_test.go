package interop

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/peers"
	"slipway/lab/procs"
	"slipway/topology"
)

// options are those of a very short bench.
func options(t *testing.T) peers.Options {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Flanneld)
	return peers.Options{
		Exe: binary, Rounds: 1, Duration: 100 * time.Millisecond, WarmUp: 20 * time.Millisecond,
		Binary: func(component, name string) string { return program(t, component, name) },
	}
}

// TestBenchBesideFlanneld measures one round of the real flanneld's vxlan and of
// ours: both columns are there, each figure with the ratio to flanneld's, and
// nothing is left afterwards.
func TestBenchBesideFlanneld(t *testing.T) {
	testnet.Need(t, testnet.VXLAN)
	o := options(t)
	o.Only = []string{"vxlan"}
	section := peers.Sections()[0]
	if section.Name != "flanneld" {
		t.Fatalf("the first section is %s", section.Name)
	}
	r, err := section.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, s := range r.Series {
		for _, m := range s.Metrics {
			if m.Name != load.Throughput && m.Name != load.P50 && m.Name != load.PacketRate {
				continue
			}
			got[s.Variant]++
			if m.Summary.Median <= 0 || m.Ratio == nil || m.Control != "flanneld/vxlan" {
				t.Errorf("%s %s %s: %v, ratio %v", s.Variant, s.Workload, m.Name, m.Summary, m.Ratio)
			}
		}
	}
	const workloads = 4
	if got["flanneld/vxlan"] != workloads || got["flannel-vxlan"] != workloads {
		t.Errorf("figures by variant: %v, want %d of each", got, workloads)
	}
	nothingLeft(t)
}

// nothingLeft expects no lab of these tests, and none of its processes.
func nothingLeft(t *testing.T) {
	t.Helper()
	names, err := lab.Names()
	if err != nil || len(names) > 0 {
		t.Errorf("labs left: %v, %v", names, err)
	}
}

// holdEnv makes the test's program hold a bed until it is killed.
const holdEnv = "SLIPWAY_INTEROP_HOLD"

// hold is what the program does then: flanneld's host-gw, and nothing else.
func hold(etcd, flanneld string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := peers.FlanneldBed(ctx, peers.Options{Exe: os.Getenv(holdEnv), Binary: func(component, _ string) string {
		return map[string]string{"etcd": etcd, "flannel": flanneld}[component]
	}}, topology.FlannelHostGW)
	if err != nil {
		return err
	}
	fmt.Println(heldMark)
	select {}
}

const heldMark = "held"

// TestKilledBenchIsSwept kills a bench while the real flanneld runs in its lab;
// the next bench ends all of that.
func TestKilledBenchIsSwept(t *testing.T) {
	o := options(t)
	cmd := exec.Command(os.Args[0], o.Binary("etcd", "etcd"), o.Binary("flannel", "flanneld"))
	cmd.Env = append(os.Environ(), holdEnv+"="+binary)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(out); in.Scan() && in.Text() != heldMark; {
		t.Log(in.Text())
	}
	names, err := lab.Names()
	if err != nil || len(names) != 1 || !strings.Contains(names[0], fmt.Sprint(cmd.Process.Pid)) {
		t.Errorf("labs before the kill: %v, %v", names, err)
	}
	if err := peers.Sweep(t.Context()); err != nil { // its bench runs: not to be touched
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	st, err := lab.ReadState(names[0])
	if err != nil {
		t.Fatalf("the lab was gone before the sweep: %v", err)
	}
	mark := strings.TrimPrefix(lab.Mark(st), procs.MarkEnv+"=")
	running := func(program string) (n int) {
		all, err := procs.Marked(mark)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			if strings.Contains(p.Command, program) {
				n++
			}
		}
		return n
	}
	if n, m := running("/flanneld "), running("/etcd "); n != 2 || m != 1 {
		t.Errorf("after the kill %d flanneld and %d etcd run, want 2 and 1 for the sweep to find", n, m)
	}
	if err := peers.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := running(""); n > 0 {
		t.Errorf("%d processes are left of the lab", n)
	}
	nothingLeft(t)
}
