package topology

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var addrs = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}

// cluster parses a cluster file of which only spec is given.
func cluster(t testing.TB, spec string) *Cluster {
	t.Helper()
	c, diags := Parse("test.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: test}\n"+spec))
	if err := diags.Err(); err != nil {
		t.Fatalf("\n%v", err)
	}
	return c
}

// manifests loads manifests that have to be right.
func manifests(t testing.TB, text string) *Objects {
	t.Helper()
	objs, _, err := LoadManifests("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return objs
}

func allocate(t testing.TB, c *Cluster, objs *Objects, prev *Allocation) (*Snapshot, *Allocation) {
	t.Helper()
	snap, alloc, err := Allocate(c, objs, prev)
	if err != nil {
		t.Fatal(err)
	}
	return snap, alloc
}

// deployment is a manifest with one TCP port, 80.
func deployment(name string, replicas int, extra string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: c, ports: [{containerPort: 80, name: http}]}]
      %[3]s
---
`, name, replicas, extra)
}

// userPods are the pods apart from the lab's own.
func userPods(s *Snapshot) []Pod {
	return slices.DeleteFunc(slices.Clone(s.Pods), func(p Pod) bool { return p.Kind == PodDNS })
}

// where maps pods to "node address".
func where(s *Snapshot) map[string]string {
	out := map[string]string{}
	for _, p := range s.Pods {
		out[p.Key()] = p.Node + " " + p.Address.String()
	}
	return out
}

func TestNothingButANameGivesThreeNodes(t *testing.T) {
	c := cluster(t, "")
	snap, _ := allocate(t, c, nil, nil)
	type node struct{ Name, Address, PodCIDR, Roles string }
	var got []node
	for _, n := range snap.Nodes {
		got = append(got, node{n.Name, n.Interface.Prefix.String(), n.PodCIDR.String(), fmt.Sprint(n.Roles)})
	}
	want := []node{
		{"master01", "192.168.233.10/24", "10.244.0.0/24", "[control-plane etcd]"},
		{"node01", "192.168.233.11/24", "10.244.1.0/24", "[worker]"},
		{"node02", "192.168.233.12/24", "10.244.2.0/24", "[worker]"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("nodes (-want +got)\n%s", d)
	}
	n := snap.Network
	if n.Mode != FlannelVXLAN || n.MTU != 1500-50 || n.VXLAN.Port != 8472 || n.VXLAN.VNI != 1 {
		t.Errorf("network %+v", n)
	}
	if len(snap.Pods) != 1 || snap.Pods[0].Kind != PodDNS || snap.Pods[0].Node != "master01" ||
		snap.Pods[0].Address.String() != "10.244.0.2" {
		t.Errorf("pods %+v, want only the DNS on the first node", snap.Pods)
	}
	if len(snap.Services) != 1 || snap.Services[0].Key() != "kube-system/kube-dns" || snap.ClusterDNS.String() != "10.96.0.10" {
		t.Errorf("services %+v, DNS %s", snap.Services, snap.ClusterDNS)
	}
}

func TestMTUIsTheSmallestSegmentsLessTheOverhead(t *testing.T) {
	for mode, want := range map[ModeName]MTU{
		FlannelUDP: 1372, FlannelVXLAN: 1350, FlannelHostGW: 1400, CalicoBGP: 1400, CalicoIPIP: 1380,
	} {
		c := cluster(t, "spec: {underlay: {segments: [{name: a, mtu: 9000}, {name: b, mtu: 1400}]}, nodes: [{name: n, segment: a}], network: {mode: "+string(mode)+"}}")
		if got := c.PodMTU(); got != want {
			t.Errorf("%s: MTU %d, want %d", mode, got, want)
		}
	}
	if got := cluster(t, "spec: {network: {mtu: 1000}}").PodMTU(); got != 1000 {
		t.Errorf("explicit MTU became %d", got)
	}
}

func TestAllocateIsDeterministic(t *testing.T) {
	c := cluster(t, "")
	objs := manifests(t, deployment("web", 20, "")+deployment("db", 3, ""))
	s1, a1 := allocate(t, c, objs, nil)
	s2, a2 := allocate(t, c, objs, nil)
	if d := cmp.Diff(s1, s2, addrs); d != "" {
		t.Errorf("two runs differ\n%s", d)
	}
	s3, a3 := allocate(t, c, objs, a1)
	if d := cmp.Diff(s1, s3, addrs); d != "" {
		t.Errorf("a second run with the first one's allocation differs\n%s", d)
	}
	if d := cmp.Diff(a1, a2) + cmp.Diff(a1, a3); d != "" {
		t.Errorf("allocations differ\n%s", d)
	}
}

func TestScalingKeepsPodsWhereTheyAre(t *testing.T) {
	c := cluster(t, "")
	before, alloc := allocate(t, c, manifests(t, deployment("web", 4, "")+deployment("db", 2, "")), nil)
	after, alloc := allocate(t, c, manifests(t, deployment("new", 3, "")+deployment("web", 7, "")+deployment("db", 1, "")), alloc)
	was, is := where(before), where(after)
	for pod, at := range was {
		if now, still := is[pod]; still && now != at {
			t.Errorf("%s moved from %s to %s", pod, at, now)
		}
	}
	kept := 0
	for pod := range is {
		if _, old := was[pod]; old {
			kept++
		}
	}
	if kept != 4+1+1 { // web, one db, the DNS
		t.Errorf("%d pods kept, want 6", kept)
	}
	addresses := map[netip.Addr]string{}
	for _, p := range after.Pods {
		if other, dup := addresses[p.Address]; dup {
			t.Errorf("%s and %s share %s", p.Key(), other, p.Address)
		}
		addresses[p.Address] = p.Key()
	}
	if len(alloc.Pods) != len(after.Pods) {
		t.Errorf("the allocation holds %d pods of %d", len(alloc.Pods), len(after.Pods))
	}
}

func TestRemovingANodeMovesOnlyItsPods(t *testing.T) {
	const three = "spec: {nodes: [{name: n1}, {name: n2}, {name: n3}]}"
	objs := manifests(t, deployment("web", 9, ""))
	before, alloc := allocate(t, cluster(t, three), objs, nil)
	after, alloc := allocate(t, cluster(t, "spec: {nodes: [{name: n1}, {name: n3}, {name: n4}]}"), objs, alloc)
	is := where(after)
	for pod, at := range where(before) {
		if strings.HasPrefix(at, "n2 ") {
			if strings.HasPrefix(is[pod], "n2 ") {
				t.Errorf("%s is still on n2", pod)
			}
		} else if is[pod] != at {
			t.Errorf("%s moved from %s to %s", pod, at, is[pod])
		}
	}
	lease := func(s *Snapshot, node string) string {
		n, _ := s.NodeByName(node)
		return n.PodCIDR.String() + " " + n.Address.String()
	}
	if a, b := lease(before, "n3"), lease(after, "n3"); a != b {
		t.Errorf("n3 had %s and has %s", a, b)
	}
	if got := lease(after, "n4"); got != "10.244.1.0/24 192.168.233.11" {
		t.Errorf("n4 has %s, want what n2 left", got)
	}
	if _, still := alloc.Subnets["n2"]; still {
		t.Error("n2 still has a lease")
	}
}

func TestSwitchingFamiliesAndBackKeepsLeases(t *testing.T) {
	c := cluster(t, "")
	objs := manifests(t, deployment("web", 6, ""))
	first, alloc := allocate(t, c, objs, nil)
	calico, err := inMode(c, CalicoIPIP)
	if err != nil {
		t.Fatal(err)
	}
	second, alloc := allocate(t, calico, objs, alloc)
	for _, p := range second.Pods {
		n, _ := second.NodeByName(p.Node)
		if !slices.ContainsFunc(n.Blocks, func(b netip.Prefix) bool { return b.Contains(p.Address) }) || p.Address == n.TunnelAddress {
			t.Errorf("%s on %s has %s, blocks %v, tunnel %s", p.Key(), p.Node, p.Address, n.Blocks, n.TunnelAddress)
		}
	}
	third, _ := allocate(t, c, objs, alloc)
	if d := cmp.Diff(where(first), where(third)); d != "" {
		t.Errorf("after switching back (-first +now)\n%s", d)
	}
	for i, p := range second.Pods {
		if p.Node != first.Pods[i].Node || p.Name != first.Pods[i].Name {
			t.Errorf("%s was on %s, is on %s", p.Key(), first.Pods[i].Node, p.Node)
		}
	}
}

func TestFullBlocksAreExtended(t *testing.T) {
	c := cluster(t, "spec: {network: {mode: calico-bgp}, nodes: [{name: n1}, {name: n2}]}")
	snap, _ := allocate(t, c, manifests(t, deployment("web", 140, "nodeName: n1")), nil)
	// n1's blocks hold 64 addresses each less the tunnel's; with the DNS 141
	// pods need three. n2 came first for the second /26.
	want := []netip.Prefix{
		netip.MustParsePrefix("10.244.0.0/26"), netip.MustParsePrefix("10.244.0.128/26"), netip.MustParsePrefix("10.244.0.192/26"),
	}
	if d := cmp.Diff(want, snap.Nodes[0].Blocks, addrs); d != "" {
		t.Errorf("blocks of n1 (-want +got)\n%s", d)
	}
	for _, p := range snap.Pods {
		if p.Address == snap.Nodes[0].Blocks[0].Addr() {
			t.Errorf("%s has the tunnel's address", p.Key())
		}
	}
}

func TestFullNodesAreErrors(t *testing.T) {
	c := cluster(t, "spec: {network: {nodePrefixLength: 29}, nodes: [{name: n1}, {name: n2}]}")
	// A /29 has 8 addresses; device, bridge and broadcast leave 5, DNS takes one.
	if _, _, err := Allocate(c, manifests(t, deployment("web", 4, "nodeName: n1")), nil); err != nil {
		t.Errorf("four pods and the DNS: %v", err)
	}
	_, _, err := Allocate(c, manifests(t, deployment("web", 5, "nodeName: n1")), nil)
	if err == nil || !strings.Contains(err.Error(), "subnet 10.244.0.0/29 is full (5 pods)") {
		t.Errorf("five pods and the DNS: %v", err)
	}
}

func TestSnapshotsSurviveJSON(t *testing.T) {
	for _, path := range examples(t) {
		c, objs := loadExample(t, path)
		snap, alloc := allocate(t, c, objs, nil)
		roundTrip(t, path, snap, &Snapshot{})
		roundTrip(t, path, alloc, &Allocation{})
		roundTrip(t, path, objs, &Objects{})
		roundTrip(t, path, c, &Cluster{})
	}
}

func roundTrip[T any](t *testing.T, path string, in, out *T) {
	t.Helper()
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, out); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, data)
	}
	if d := cmp.Diff(in, out, addrs, cmpopts.IgnoreUnexported(Objects{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s: %T differs after JSON\n%s", path, in, d)
	}
}

func TestMarshalledClustersParseEqual(t *testing.T) {
	for _, path := range examples(t) {
		c, _ := loadExample(t, path)
		data, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, diags := Parse(path, data)
		if err := diags.Err(); err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if d := cmp.Diff(c, again, addrs, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s\n%s", path, d)
		}
	}
}

func TestEveryMACIsLocalAndUnique(t *testing.T) {
	snap, _ := allocate(t, cluster(t, ""), manifests(t, deployment("web", 200, "")), nil)
	macs := map[string]bool{}
	for _, n := range snap.Nodes {
		macs[n.Interface.MAC], macs[n.VTEPMAC] = true, true
	}
	for _, p := range snap.Pods {
		macs[p.MAC] = true
	}
	if want := 3*2 + 201; len(macs) != want {
		t.Errorf("%d different MACs, want %d", len(macs), want)
	}
	for mac := range maps.Keys(macs) {
		if !strings.HasPrefix(mac, "02:") {
			t.Errorf("%s is not locally administered", mac)
		}
	}
}

// BenchmarkAllocate10000Pods places 10,000 pods on 100 nodes behind 100
// services.
func BenchmarkAllocate10000Pods(b *testing.B) {
	var nodes, objects strings.Builder
	nodes.WriteString("spec: {nodes: [")
	for i := range 100 {
		fmt.Fprintf(&nodes, "{name: n%d}, ", i)
		objects.WriteString(deployment(fmt.Sprintf("web%d", i), 100, ""))
		fmt.Fprintf(&objects, "apiVersion: v1\nkind: Service\nmetadata: {name: web%d}\nspec: {selector: {app: web%d}, ports: [{port: 80}]}\n---\n", i, i)
	}
	for _, mode := range []ModeName{FlannelVXLAN, CalicoBGP} {
		b.Run(string(mode), func(b *testing.B) {
			c := cluster(b, nodes.String()+"], network: {mode: "+string(mode)+"}}")
			objs := manifests(b, objects.String())
			_, alloc := allocate(b, c, objs, nil)
			b.ReportAllocs()
			for b.Loop() {
				allocate(b, c, objs, alloc)
			}
		})
	}
}
