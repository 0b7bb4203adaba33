package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/examples"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// scratch is where the tests' program lies.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "slipway-bench-test"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratch) // a directory of temporary files
	os.Exit(code)
}

// built builds the program that is measured, once.
var built = sync.OnceValues(func() (string, error) {
	exe := filepath.Join(scratch, "slipway")
	return exe, testnet.Build(exe, "slipway/cmd/slipway")
})

// tiny are options of a bench that takes seconds, with a program built for it
// and labs in a directory of their own.
func tiny(t *testing.T) ScaleOptions {
	testnet.Need(t, testnet.Root, testnet.VXLAN, testnet.IPTables)
	t.Setenv(lab.StateDirEnv, t.TempDir())
	exe, err := built()
	if err != nil {
		t.Fatal(err)
	}
	o := ScaleOptions{
		Exe: exe, Parts: Parts(), Rounds: 1,
		LabModes: []topology.ModeName{topology.FlannelVXLAN, topology.CalicoBGP}, PodModes: []topology.ModeName{topology.FlannelVXLAN},
		Nodes: 2, Pods: []int{6}, Services: []int{4}, TraceServices: 3, Files: map[string][]byte{},
	}
	names, err := examples.Files.ReadDir(".")
	for _, n := range names {
		if err == nil {
			o.Files[n.Name()], err = examples.Files.ReadFile(n.Name())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// nothingLeft fails if a lab of this process's bench is there in any form.
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

func TestScaleMeasuresRealLabs(t *testing.T) {
	r, err := Scale(t.Context(), tiny(t))
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
	if len(r.Groups) != len(Parts()) {
		t.Fatalf("%d groups, want %d", len(r.Groups), len(Parts()))
	}
	bgp := r.Groups[0].Cases[1]
	first, ready, converge := medianOf(t, bgp, "first up"), medianOf(t, bgp, "ready"), medianOf(t, bgp, "· converge")
	if converge <= 0 || ready <= 0 || !near(first, ready+converge) {
		t.Errorf("%s came up in %v ms, of which %v before and %v for BGP", bgp.Name, first, ready, converge)
	}
	for _, name := range []string{"second up", "second ÷ first", "down"} {
		for _, c := range r.Groups[0].Cases {
			if medianOf(t, c, name) <= 0 {
				t.Errorf("%s: %s is not there", c.Name, name)
			}
		}
	}
	pods := r.Groups[1].Cases[0]
	if asked, right := medianOf(t, pods, "pods asked"), medianOf(t, pods, "pods that answered"); asked != 6 || right != 6 {
		t.Errorf("of 6 pods %v were asked and %v answered: %v", asked, right, r.Groups[1].Notes)
	}
	for _, name := range []string{"first up", "wall a pod, in the phase pods", "CPU a pod, whole up", "daemon memory a pod", "second ÷ first", "down"} {
		if medianOf(t, pods, name) <= 0 {
			t.Errorf("%s: %s is not there", pods.Name, name)
		}
	}
	services := r.Groups[2].Cases[0]
	if asked, right := medianOf(t, services, "services asked"), medianOf(t, services, "services that answered"); asked != 4 || right != 4 {
		t.Errorf("of 4 services %v were asked and %v answered: %v", asked, right, r.Groups[2].Notes)
	}
	// Each service has a chain with three rules that choose an endpoint, and each
	// endpoint one with at least a DNAT rule, besides the entry into the chain.
	if rules := medianOf(t, services, "rules on a node"); rules < 4*(1+3+3) {
		t.Errorf("%v rules for 4 services of 3 endpoints", rules)
	}
	for _, c := range r.Groups[3].Cases {
		if medianOf(t, c, "one trace") <= 0 || medianOf(t, c, "traces as predicted") != 1 {
			t.Errorf("%s: one trace took %v ms, %v were as predicted", c.Name, medianOf(t, c, "one trace"), medianOf(t, c, "traces as predicted"))
		}
	}
	if ratio := medianOf(t, r.Groups[3].Cases[0], "attached ÷ not"); ratio <= 0 {
		t.Errorf("throughput beside a tracer, over that without: %v", ratio)
	}
	var table, markdown bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteMarkdown(&markdown)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 nodes", "calico-bgp", "kernel memory a pod", "4 services × 3", "Targets:", r.Conditions.Kernel} {
		if !strings.Contains(table.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("%q is not in both\n%s\nand\n%s", want, table.String(), markdown.String())
		}
	}
}

func near(a, b float64) bool { return max(a-b, b-a) < 1e-6*max(a, b) }

func medianOf(t *testing.T, c Case, name string) float64 {
	t.Helper()
	f, ok := c.Figure(name)
	if !ok {
		t.Fatalf("%s has no figure %q", c.Name, name)
	}
	return f.Median
}

// cancelAt ends a bench when a phase begins.
type cancelAt struct {
	lab.Silent
	phase  string
	cancel func()
}

func (c cancelAt) Phase(name string, _ int) {
	if strings.Contains(name, c.phase) {
		c.cancel()
	}
}

func TestInterruptedScaleLeavesNothing(t *testing.T) {
	o := tiny(t)
	for _, phase := range []string{"small labs", "ask each", "up again"} {
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = cancelAt{phase: phase, cancel: cancel}
		if _, err := Scale(ctx, o); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted at %q it ended with %v", phase, err)
		}
		cancel()
		nothingLeft(t)
	}
}

func TestScaleReportsWhatItGotBeforeItFailed(t *testing.T) {
	o := tiny(t)
	o.LabModes = o.LabModes[:1]
	o.Nodes, o.Pods = 1, []int{300} // a node's /24 has 253 addresses for pods
	r, err := Scale(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "300 pods") {
		t.Errorf("300 pods on a node of 253 addresses: %v", err)
	}
	if len(r.Groups) != 1 || r.Groups[0].Part != PartLabs {
		t.Errorf("of the labs that were measured %d groups came back", len(r.Groups))
	}
	nothingLeft(t)
}

func TestMadeClustersHoldWhatWasAsked(t *testing.T) {
	c, diags := topology.Parse("made", []byte(clusterText("bench", 100, "objects.yaml")))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	objects, warnings, err := topology.LoadManifests("objects.yaml", []byte(workloadText(1000)+servicesText(20)))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	s, err := lab.Preview(c, objects)
	if err != nil {
		t.Fatal(err)
	}
	onNode := map[string]int{}
	for _, p := range s.Pods {
		if p.Owner == workload {
			onNode[p.Node]++
		}
	}
	if len(onNode) != 100 {
		t.Errorf("1000 pods are on %d of 100 nodes", len(onNode))
	}
	for n, have := range onNode {
		if have < 9 || have > 11 { // 10 each, but for the cluster's own DNS pod
			t.Errorf("%s has %d of 1000 pods", n, have)
		}
	}
	made := 0
	for _, svc := range s.Services {
		if svc.Namespace == "default" {
			made++
			if n := len(svc.Ports[0].Endpoints); n != 1000 {
				t.Errorf("service %s has %d endpoints", svc.Name, n)
			}
		}
	}
	if made != 20 {
		t.Errorf("%d services, want 20", made)
	}
	questions := neighbourly(s)
	if len(questions) != 1000 {
		t.Errorf("%d questions to 1000 pods", len(questions))
	}
	node := map[string]string{}
	for _, p := range s.Pods {
		node[p.Key()] = p.Node
	}
	for _, q := range questions {
		if node[q.answerer] == q.from.Node {
			t.Errorf("%s is asked from its own node", q.answerer)
		}
	}
}

func TestServicesAreSampledEvenly(t *testing.T) {
	s, err := serviceSnapshot(2500)
	if err != nil {
		t.Fatal(err)
	}
	q := ofServices(s)
	if len(q) != 834 { // every third of 2500: as many as fit into 1000
		t.Errorf("%d of 2500 services are asked", len(q))
	}
	for _, svc := range s.Services {
		if svc.Namespace == "default" && len(svc.Ports[0].Endpoints) != endpoints {
			t.Fatalf("service %s has %d endpoints", svc.Name, len(svc.Ports[0].Endpoints))
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		want Verdict
		cell string
	}{
		{figure("a", "s", 0.5).atMost(1), Met, "0.500 ✓"},
		{figure("a", "s", 1).atMost(1), Met, "1 ✓"},
		{figure("a", "s", 1.5).atMost(1), NotMet, "1.50 ✗"},
		{figure("a", "KB", -4).atMost(400), NotMet, "-4 ✗"}, // memory of others was freed meanwhile
		{figure("a", "s", 0.5, 2.5, 0.7).atMost(1), Met, "0.700 (0.500–2.50) ✓"},
		{figure("a", "s").atMost(1), NotMet, "– ✗"},
		{figure("a", "", 999).atLeast(1000), NotMet, "999 ✗"},
		{figure("a", "", 1000).atLeast(1000), Met, "1000 ✓"},
		{figure("a", "s", 12.34), "", "12.3"},
	} {
		if c.f.Verdict != c.want || c.f.cell() != c.cell {
			t.Errorf("%s is %q, want %q as %s", c.f.cell(), c.f.Verdict, c.want, c.cell)
		}
	}
}

func TestMissedTargetsAreNamed(t *testing.T) {
	r := ScaleReport{Groups: []Group{{Title: "labs", Cases: []Case{
		{Name: "fast", Figures: []Figure{figure("up", "s", 0.5).atMost(1), figure("down", "s", 3)}},
		{Name: "slow", Figures: []Figure{figure("up", "s", 2).atMost(1), figure("answered", "", 5).atLeast(6)}},
	}}}}
	want := []string{"slow, up, 2 s, target ≤ 1", "slow, answered, 5, target ≥ 6"}
	if diff := cmp.Diff(want, r.Missed()); diff != "" {
		t.Error(diff)
	}
	var b bytes.Buffer
	if err := r.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"|  | fast | slow | target |", "| up, s | 0.500 ✓ | 2 ✗ | ≤ 1 |", "| down, s | 3 |  |  |", "Targets: 1 of 3 met.", "✗ not met: slow, up, 2 s, target ≤ 1"} {
		if !slices.Contains(strings.Split(b.String(), "\n"), line) {
			t.Errorf("no line %q in\n%s", line, b.String())
		}
	}
}

func TestRowsKeepTheirCasesOrder(t *testing.T) {
	g := Group{Cases: []Case{
		{Figures: []Figure{figure("up", ""), figure("down", "")}},
		{Figures: []Figure{figure("up", ""), figure("converge", ""), figure("down", ""), figure("after", "")}},
	}}
	var names []string
	for _, f := range g.rows() {
		names = append(names, f.Name)
	}
	if diff := cmp.Diff([]string{"up", "converge", "down", "after"}, names); diff != "" {
		t.Error(diff)
	}
}
