package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"slipway/topology"
)

// Interface names must fit the kernel's 15 characters and stay apart.
func TestIfNameFitsAndStaysUnique(t *testing.T) {
	seen := map[string]string{}
	for _, parts := range [][]string{
		{"br", "rack1"}, {"br", "a-segment-name-longer-than-15"}, {"br", "a-segment-name-longer-than-16"},
		{"node01", "eth0"}, {"node01-with-a-long-name", "eth0"}, {"node01-with-a-long-name", "eth1"},
	} {
		full := strings.Join(parts, "-")
		name := ifName(parts...)
		if len(name) > maxIfName {
			t.Errorf("%q: %q is %d characters long", full, name, len(name))
		}
		if other, taken := seen[name]; taken {
			t.Errorf("%q and %q are both %q", full, other, name)
		}
		seen[name] = full
		if len(full) <= maxIfName && name != full {
			t.Errorf("%q fits but became %q", full, name)
		}
	}
}

// A pod's namespace name can be nobody else's: machine names hold no dot, and a
// Kubernetes namespace neither.
func TestNamespaceNamesOfPodsAndMachinesStayApart(t *testing.T) {
	pod, node := NSOfPod("demo", "default/web.1"), NSOfMachine("demo", "default-web")
	if pod != "slipway-demo-default.web.1" {
		t.Errorf("pod: %q", pod)
	}
	if !isPod(pod) || isPod(node) {
		t.Errorf("isPod(%q) = %t, isPod(%q) = %t", pod, isPod(pod), node, isPod(node))
	}
}

func TestHighestFreeAddress(t *testing.T) {
	p := netip.MustParsePrefix("192.168.1.0/29")
	used := map[netip.Addr]bool{}
	var got []string
	for {
		a, err := highestFree(p, used)
		if err != nil {
			break
		}
		got = append(got, a.String())
		used[a] = true
	}
	// A /29 has six hosts; neither .0 nor the broadcast address .7 is one.
	want := "192.168.1.6 192.168.1.5 192.168.1.4 192.168.1.3 192.168.1.2 192.168.1.1"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestGapOf(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	for _, c := range []struct {
		name    string
		results []attempt
		lost    int
		gap     time.Duration
	}{
		{"nothing lost", []attempt{{at(0), true}, {at(5), true}, {at(500), true}}, 0, 0},
		{"one gap", []attempt{{at(0), true}, {at(5), false}, {at(10), false}, {at(15), true}}, 2, 15 * time.Millisecond},
		{"the longest of two", []attempt{{at(0), true}, {at(5), false}, {at(10), true}, {at(15), false}, {at(45), true}}, 2, 35 * time.Millisecond},
		{"results come out of order", []attempt{{at(15), true}, {at(0), true}, {at(5), false}}, 1, 15 * time.Millisecond},
		{"never any success", []attempt{{at(0), false}, {at(5), false}}, 2, 0},
		{"lost to the end is no closed gap", []attempt{{at(0), true}, {at(5), false}}, 1, 0},
	} {
		n, lost, gap := gapOf(c.results)
		if n != len(c.results) || lost != c.lost || gap != c.gap {
			t.Errorf("%s: %d attempts, %d lost, gap %s; want %d, %d, %s", c.name, n, lost, gap, len(c.results), c.lost, c.gap)
		}
	}
}

func TestResolve(t *testing.T) {
	pods := []topology.Pod{
		{Namespace: "default", Name: "web-abc", Owner: "Deployment/web"},
		{Namespace: "default", Name: "web-def", Owner: "Deployment/web"},
		{Namespace: "default", Name: "client"},
		{Namespace: "other", Name: "client"},
		{Namespace: "other", Name: "db-0", Owner: "StatefulSet/db"},
	}
	st := &State{Lab: "x", Snapshot: &topology.Snapshot{Lab: "x", Pods: pods,
		Segments: []topology.Segment{{Name: "s", Subnet: netip.MustParsePrefix("10.0.0.0/24")}},
		Nodes:    []topology.NodeState{{Node: topology.Node{Name: "node01"}, Interface: topology.Interface{Prefix: netip.MustParsePrefix("10.0.0.2/24")}}},
	}}
	for name, want := range map[string]string{
		"client": "default/client", "other/client": "other/client", "db-0": "other/db-0", "deploy/web": "default/web-abc",
		"sts/db": "other/db-0", "web-d": "default/web-def", "node01": "node01", "external": "external", "fabric": "fabric",
	} {
		got, err := Resolve(st, name)
		if err != nil || got.Label != want {
			t.Errorf("%s: %v, %v; want %s", name, got, err, want)
		}
	}
	for name, want := range map[string]string{"web": "default/web-abc, default/web-def", "nobody": "no node or pod", "deploy/db": "no node or pod"} {
		if _, err := Resolve(st, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", name, err, want)
		}
	}
}
