package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/topology"
)

// someCluster has a master without pods, two workers in one rack and one in
// another, and a service that has the last node port.
const someCluster = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: some}
spec:
  network: {mode: flannel-vxlan}
  underlay:
    segments: [{name: rack1, subnet: 192.168.1.0/24}, {name: rack2, subnet: 192.168.2.0/24}]
    routers: [{name: r1, segments: [rack1, rack2]}]
  nodes:
    - {name: m, segment: rack1, roles: [control-plane, etcd]}
    - {name: a, segment: rack1, roles: [worker]}
    - {name: b, segment: rack2, roles: [worker]}
    - {name: c, segment: rack1, roles: [worker]}
`

const someObjects = `apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: web:1, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 32767}]}
`

// some decides what a lab of the text would be.
func some(t *testing.T, text string) *topology.Snapshot {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(text))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	o, _, err := topology.LoadManifests("objects.yaml", []byte(someObjects))
	if err != nil {
		t.Fatal(err)
	}
	s, err := lab.Preview(c, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Pods go to workers, by the segments that these are in; ports that the lab has are
// left to it.
func TestPlacesInARunningLab(t *testing.T) {
	r, err := placesIn(some(t, someCluster))
	if err != nil {
		t.Fatal(err)
	}
	want := []benchPod{
		{client, "a", matrix.Hairpin, 32766}, {"near", "a", matrix.SameNode, 32765},
		{"server", "c", matrix.OtherNode, 32764}, {"far", "b", matrix.OtherRack, 32763},
	}
	if diff := cmp.Diff(want, r.pods, cmp.AllowUnexported(benchPod{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{matrix.OtherNode, matrix.SameNode, matrix.OtherRack, matrix.Hairpin, matrix.Loopback, matrix.NodeNode}, r.Paths()); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if r.Name() != "flannel-vxlan" {
		t.Errorf("it is called %s", r.Name())
	}
	r.Components = topology.ComponentsFull
	if r.Name() != "flannel-vxlan+full" {
		t.Errorf("with real components it is called %s", r.Name())
	}
}

// One worker has the paths that need no other.
func TestPlacesOnOneNode(t *testing.T) {
	s := some(t, someCluster)
	s.Nodes = s.Nodes[:2]
	r, err := placesIn(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{matrix.SameNode, matrix.Hairpin, matrix.Loopback}, r.Paths()); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	s.Nodes = s.Nodes[:1]
	if _, err := placesIn(s); !errors.Is(err, ErrNotMeasurable) {
		t.Errorf("a lab without workers: %v", err)
	}
}

// running brings a lab up that a bench can be made in, and says how it is.
func running(t *testing.T) (name string, before *lab.State) {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.VXLAN, testnet.IPTables)
	t.Setenv(lab.StateDirEnv, t.TempDir())
	exe, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "cluster.yaml")
	for path, text := range map[string]string{file: someCluster + "  manifests: [objects.yaml]\n", filepath.Join(dir, "objects.yaml"): someObjects} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name = fmt.Sprintf("bench-%d-here", os.Getpid())
	t.Cleanup(func() {
		if err := takeDown(context.Background(), name); err != nil {
			t.Error(err)
		}
		nothingLeft(t)
	})
	if _, err := (program{exe}).up(t.Context(), file, name, topology.FlannelVXLAN); err != nil {
		t.Fatal(err)
	}
	if before, err = lab.ReadState(name); err != nil {
		t.Fatal(err)
	}
	return name, before
}

// asBefore fails unless the lab is as it was: the same snapshot, nothing astray, no
// namespace more.
func asBefore(t *testing.T, before *lab.State) {
	t.Helper()
	st, err := lab.ReadState(before.Lab)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asJSON(t, before.Snapshot), asJSON(t, st.Snapshot)); diff != "" {
		t.Errorf("the lab is not as before (-before +after):\n%s", diff)
	}
	if refs := st.Applied.Refs(); len(refs) > 0 {
		t.Errorf("objects are left: %v", refs)
	}
	h, err := lab.Status(context.Background(), before.Lab)
	if err != nil {
		t.Fatal(err)
	}
	if !h.OK() {
		t.Errorf("the lab is %s, missing %v, drift %v", h.State, h.Missing, h.Drift)
	}
	left, err := netns.Names(lab.NSOfPod(before.Lab, hereNamespace+"/"))
	if err != nil || len(left) > 0 {
		t.Errorf("namespaces %v are left, %v", left, err)
	}
}

func asJSON(t *testing.T, s *topology.Snapshot) string {
	t.Helper()
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// here are options of a short bench in a lab.
func here(t *testing.T, name string) ModesOptions {
	t.Helper()
	r, err := LookAt(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return ModesOptions{
		Here: r, Control: r.Name(), Workloads: []string{load.TCPRequests, load.TCPConnects, load.Idle}, Streams: []int{1},
		Rounds: 2, MaxRounds: 2, Duration: 60 * time.Millisecond, WarmUp: 10 * time.Millisecond, Seed: 1,
	}
}

// A running lab is measured on every path that it has, and left as it was; so it is
// after a bench that was interrupted, and one that was killed.
func TestHereMeasuresARunningLab(t *testing.T) {
	name, before := running(t)
	p := here(t, name).Plan()
	r, err := Modes(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	asBefore(t, before)
	if len(r.Series) != len(p.Cases) || p.Measurements != len(p.Cases) {
		t.Errorf("%d series of %d cases, %d measurements planned", len(r.Series), len(p.Cases), p.Measurements)
	}
	for _, path := range []string{matrix.OtherNode, matrix.SameNode, matrix.OtherRack, matrix.Hairpin} {
		if got := variantsOf(r, load.TCPRequests, path); got != "flannel-vxlan" {
			t.Errorf("tcp-rr by %s is of %q", path, got)
		}
	}
	for _, s := range r.Series {
		for _, m := range s.Metrics {
			if m.Name == s.Main && m.Summary.Median <= 0 && s.Workload != load.Idle {
				t.Errorf("%s %s %s: %s is %+v", s.Workload, s.Path, s.Target, m.Name, m.Summary)
			}
		}
	}
	if r.Conditions.Lab == "" || len(r.Notes) == 0 {
		t.Errorf("the report does not say that the lab was running: %+v", r.Conditions)
	}
	t.Run("interrupted", func(t *testing.T) { interruptHere(t, name, before) })
	t.Run("after a killed one", func(t *testing.T) { afterKilled(t, name, before) })
	t.Run("somebody else's namespace", func(t *testing.T) { refuseForeign(t, name) })
}

func interruptHere(t *testing.T, name string, before *lab.State) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := here(t, name)
	o.Progress = &interrupter{end: cancel}
	r, err := Modes(ctx, o.Plan())
	if !errors.Is(err, context.Canceled) || r == nil || !r.Partial {
		t.Errorf("error %v, report %+v", err, r)
	}
	asBefore(t, before)
}

// What a killed bench left is taken away by the next, and does not hold it off; two
// at a time there are none.
func afterKilled(t *testing.T, name string, before *lab.State) {
	o := here(t, name)
	killed, err := comeTo(t.Context(), o.Here, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := comeTo(t.Context(), o.Here, nil); !errors.Is(err, ErrBenchBusy) {
		t.Errorf("a second bench in the same lab: %v", err)
	}
	killed.shut()
	if err := killed.lock.Close(); err != nil { // as the kernel does
		t.Fatal(err)
	}
	if o = here(t, name); o.Here.pods[0].nodePort != killed.pods[0].nodePort {
		t.Errorf("the ports of the killed one are lost: %+v", o.Here.pods)
	}
	o.Workloads = []string{load.TCPRequests}
	if _, err := Modes(t.Context(), o.Plan()); err != nil {
		t.Fatal(err)
	}
	asBefore(t, before)
}

func refuseForeign(t *testing.T, name string) {
	o, _, err := topology.LoadManifests("ns.yaml", []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+hereNamespace+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := lab.Apply(t.Context(), name, o, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Modes(t.Context(), here(t, name).Plan()); !errors.Is(err, errForeign) {
		t.Errorf("error %v", err)
	}
	st, err := lab.ReadState(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Applied.Namespaces) != 1 {
		t.Errorf("it is gone: %v", st.Applied.Refs())
	}
}
