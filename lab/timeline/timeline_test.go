package timeline

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// What `ip -ts -o monitor label` prints, and what is told of it.
func TestParseMonitor(t *testing.T) {
	for _, c := range []struct{ line, kind, text string }{
		{`[2026-01-02T15:04:05.000001] [ROUTE]10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink `, "route", "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"},
		{`[2026-01-02T15:04:05.000001] [ROUTE]Deleted 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink `, "route", "Deleted 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"},
		{`[2026-01-02T15:04:05.000001] [LINK]7: veth51ba3ec5@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue master cni0 state UP group default \    link/ether 6e:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff link-netnsid 3`, "link", "veth51ba3ec5 mtu 1450 master cni0 state UP"},
		{`[2026-01-02T15:04:05.000001] [ADDR]3: cni0    inet 10.244.1.1/24 brd 10.244.1.255 scope global cni0\       valid_lft forever preferred_lft forever`, "address", "cni0 inet 10.244.1.1/24 brd 10.244.1.255 cni0"},
		{`[2026-01-02T15:04:05.000001] [NEIGH]10.244.2.0 dev flannel.1 lladdr 6e:00:00:00:00:01 PERMANENT`, "neighbour", "10.244.2.0 dev flannel.1 lladdr 6e:00:00:00:00:01 PERMANENT"},
		// What comes and goes by itself says nothing, nor does IPv6's housekeeping.
		{`[2026-01-02T15:04:05.000001] [NEIGH]10.244.1.3 dev cni0 lladdr 6e:00:00:00:00:01 REACHABLE`, "", ""},
		{`[2026-01-02T15:04:05.000001] [ADDR]3: cni0    inet6 fe80::1/64 scope link `, "", ""},
		{`[2026-01-02T15:04:05.000001] [ROUTE]local 10.244.1.1 dev cni0 table local proto kernel scope host src 10.244.1.1 `, "", ""},
		{`[NEXTHOP]id 1`, "", ""},
		{``, "", ""},
	} {
		at, kind, text := parseMonitor(c.line)
		if kind != c.kind || text != c.text {
			t.Errorf("%s\ngot  %q %q\nwant %q %q", c.line, kind, text, c.kind, c.text)
		}
		if want := time.Date(2026, 1, 2, 15, 4, 5, 1000, time.Local); kind != "" && !at.Equal(want) {
			t.Errorf("%s: at %v", c.line, at)
		}
	}
}

// Changes of places that are told late come in the order in which they happened.
func TestOrder(t *testing.T) {
	w := &watch{events: make(chan Event, 8)}
	now := time.Now()
	for _, e := range []struct {
		ago  time.Duration
		text string
	}{{20 * time.Millisecond, "second"}, {10 * time.Millisecond, "third"}, {30 * time.Millisecond, "first"}, {10 * time.Millisecond, "third too"}} {
		w.say(now.Add(-e.ago), "node01", "route", "%s", e.text)
	}
	close(w.events)
	var got []string
	w.order(func(e Event) { got = append(got, e.Text) })
	if diff := cmp.Diff([]string{"first", "second", "third", "third too"}, got); diff != "" {
		t.Error(diff)
	}
}

// seen collects events as they come.
type seen struct {
	mu  sync.Mutex
	all []Event
}

func (s *seen) add(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, e)
}

// has waits for a change.
func (s *seen) has(t *testing.T, place, kind, text string) {
	t.Helper()
	testnet.Eventually(t, 2*time.Minute, fmt.Sprintf("%s: %s %s", place, kind, text), func() (bool, string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.all {
			if e.Place == place && e.Kind == kind && strings.HasPrefix(e.Text, text) {
				return true, ""
			}
		}
		return false, fmt.Sprint(s.all)
	})
}

// machine is a namespace that is called as a node of a lab.
func machine(t *testing.T, labName, node string) *netns.NS {
	t.Helper()
	ns, err := netns.Create(lab.NSOfMachine(labName, node))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close() // a handle
		if err := netns.Delete(lab.NSOfMachine(labName, node)); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// Two kernels are listened to: their links, addresses, routes and service rules, and
// nothing of what was there before.
func TestKernels(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	t.Setenv("XTABLES_LOCKFILE", t.TempDir()+"/lock")
	name := fmt.Sprintf("tl%d", os.Getpid())
	st := &lab.State{Lab: name, Snapshot: &topology.Snapshot{}}
	handles := map[string]*nl.Handle{}
	spaces := map[string]*netns.NS{}
	for _, node := range []string{"node01", "node02"} {
		spaces[node] = machine(t, name, node)
		handles[node] = testnet.Handle(t, spaces[node])
		st.Snapshot.Nodes = append(st.Snapshot.Nodes, topology.NodeState{Node: topology.Node{Name: node}})
		link(t, handles[node], "before")
	}
	ctx, stop := context.WithCancel(t.Context())
	var s seen
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- Watch(ctx, st, func() { close(ready) }, s.add) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	link(t, handles["node01"], "veth0")
	link(t, handles["node02"], "veth1")
	rule(t, spaces["node02"], "-A")
	s.has(t, "node01", "link", "veth0")
	s.has(t, "node01", "address", "veth0 inet 10.9.0.1/24")
	s.has(t, "node01", "route", "10.9.0.0/24 dev veth0")
	s.has(t, "node02", "link", "veth1")
	s.has(t, "node02", "nat", "+ OUTPUT -d 10.96.0.1/32")
	rule(t, spaces["node02"], "-D")
	s.has(t, "node02", "nat", "- OUTPUT -d 10.96.0.1/32")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, e := range s.all {
		if strings.HasPrefix(e.Text, "before") || e.Place == "node01" && strings.Contains(e.Text, "veth1") {
			t.Errorf("told, and should not be: %+v", e)
		}
	}
}

// link makes a device with an address, up.
func link(t *testing.T, h *nl.Handle, name string) {
	t.Helper()
	l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := h.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	address, err := netlink.ParseAddr("10.9.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if name == "before" {
		address.IP[len(address.IP)-2] = 8
	}
	if err := h.AddrAdd(l, address); err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

// rule adds a service's rule, or deletes it.
func rule(t *testing.T, ns *netns.NS, verb string) {
	t.Helper()
	cmd := run.Cmd{NS: ns, Name: "iptables-legacy", Args: []string{"-t", "nat", verb, "OUTPUT", "-d", "10.96.0.1/32", "-p", "tcp", "-j", "DNAT", "--to-destination", "10.9.0.2"}}
	if _, err := exec.LookPath(cmd.Name); err != nil {
		cmd.Name = "iptables"
	}
	if _, err := cmd.Output(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What is not there any more, and what an object says that others act on.
func TestDescribe(t *testing.T) {
	two, ready, not := int32(2), true, false
	for _, c := range []struct {
		object runtime.Object
		want   string
	}{
		{&apps.Deployment{Spec: apps.DeploymentSpec{Replicas: &two}, Status: apps.DeploymentStatus{Replicas: 2, ReadyReplicas: 1}}, "2 wanted, 2 there, 1 ready"},
		{&apps.ReplicaSet{}, "1 wanted, 0 there, 0 ready"},
		{&core.Pod{Status: core.PodStatus{Phase: core.PodPending}}, "Pending, no node yet"},
		{&core.Pod{Spec: core.PodSpec{NodeName: "node01"}, Status: core.PodStatus{Phase: core.PodRunning, PodIP: "10.244.1.2", Conditions: []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}}}, "Running, on node01, 10.244.1.2, ready"},
		{&core.Service{Spec: core.ServiceSpec{Type: core.ServiceTypeClusterIP, ClusterIP: "10.96.0.9"}}, "ClusterIP 10.96.0.9"},
		{&discovery.EndpointSlice{}, "no endpoints"},
		{&discovery.EndpointSlice{Endpoints: []discovery.Endpoint{
			{Addresses: []string{"10.244.2.2"}, Conditions: discovery.EndpointConditions{Ready: &not}},
			{Addresses: []string{"10.244.1.2"}, Conditions: discovery.EndpointConditions{Ready: &ready}},
		}}, "10.244.1.2, 10.244.2.2 (not ready)"},
		{&core.Secret{}, ""},
	} {
		if got := describe(c.object); got != c.want {
			t.Errorf("%T: got %q, want %q", c.object, got, c.want)
		}
	}
}

// The API's changes are told once each, with their namespace unless it is the default
// one.
func TestFollow(t *testing.T) {
	w := &watch{events: make(chan Event, 16)}
	f := apiwatch.NewFake()
	pod := func(namespace string, phase core.PodPhase) *core.Pod {
		return &core.Pod{ObjectMeta: meta.ObjectMeta{Namespace: namespace, Name: "web"}, Status: core.PodStatus{Phase: phase}}
	}
	dying := pod("default", core.PodRunning)
	dying.DeletionTimestamp = &meta.Time{Time: time.Now()}
	go func() {
		f.Add(pod("default", core.PodPending))
		f.Modify(pod("default", core.PodRunning))
		f.Modify(pod("default", core.PodRunning)) // says nothing new
		f.Add(pod("kube-system", core.PodPending))
		f.Modify(dying)
		f.Delete(dying)
		f.Stop()
	}()
	w.follow(t.Context(), "pod", f)
	close(w.events)
	var got []string
	for e := range w.events {
		got = append(got, e.Place+" "+e.Kind+" "+e.Text)
	}
	want := []string{
		"api pod web created: Pending, no node yet", "api pod web Running, no node yet", "api pod kube-system/web created: Pending, no node yet",
		"api pod web is to go: Running, no node yet", "api pod web deleted",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
