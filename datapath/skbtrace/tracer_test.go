package skbtrace_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// quiet is how long nothing must come for a trace to be over: far more than a
// packet takes between two points, even on a busy machine.
const quiet = 200 * time.Millisecond

func open(t *testing.T, o skbtrace.Options) *skbtrace.Tracer {
	t.Helper()
	tr, err := skbtrace.Open(o)
	check(t, err)
	t.Cleanup(func() { check(t, tr.Close()) })
	return tr
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func in(t *testing.T, ns *netns.NS, name string, args ...string) error {
	t.Helper()
	return ns.Do(func() error { return exec.Command(name, args...).Run() })
}

func flow(proto, src, dst string) skbtrace.Flow {
	return skbtrace.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// names says in short where events were: "a output/-450", "b receive eth0".
func names(t *testing.T, events []skbtrace.Event, spaces map[string]*netns.NS) []string {
	t.Helper()
	by := map[uint64]string{}
	for name, ns := range spaces {
		inode, err := ns.Inode()
		check(t, err)
		by[inode] = name
	}
	points := [...]string{"?", "receive", "rx", "queue", "xmit", "free", "consume", "icmp_send", "hook"}
	var out []string
	for _, e := range events {
		what := points[e.Point] + " " + e.Device
		switch e.Point {
		case skbtrace.Hook:
			what = fmt.Sprintf("%s/%d", e.Hook, e.Priority)
		case skbtrace.Free:
			what = "free " + e.Reason + " " + e.Location
		}
		out = append(out, by[e.Inode]+" "+what)
	}
	return out
}

// The way of a ping's request between two namespaces without any table.
func TestPing(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.Ping)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
	tr := open(t, skbtrace.Options{Namespaces: []*netns.NS{a, b}, Flows: []skbtrace.Flow{flow("icmp", "10.0.0.1:0", "10.0.0.2:0")}})
	check(t, in(t, a, "ping", "-c1", "-W5", "10.0.0.2"))
	events, err := tr.Collect(context.Background(), quiet, nil)
	check(t, err)
	var request []skbtrace.Event
	for _, e := range events {
		if e.Skb == events[0].Skb && e.Data[20] == 8 { // ICMP echo request
			request = append(request, e)
		}
	}
	want := []string{
		"a output/-450", "a output/450", "a postrouting/-450", "a postrouting/450", "a queue eth0", "a xmit eth0",
		"b rx eth0", "b receive eth0", "b prerouting/-450", "b prerouting/450", "b input/-450", "b input/450",
		"b consume eth0", // icmp_rcv: answered
	}
	if diff := cmp.Diff(want, names(t, request, map[string]*netns.NS{"a": a, "b": b})); diff != "" {
		t.Error(diff)
	}
	if n := tr.Lost(); n != 0 {
		t.Errorf("%d events were lost", n)
	}
}

// Without netfilter programs, devices still show the packet, and where it ended.
func TestTracepointsOnly(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	r := newRouted(t)
	f := flow("icmp", clientAddr+":0", serverAddr+":0")
	tr, err := skbtrace.Open(skbtrace.Options{Namespaces: []*netns.NS{r.client, r.router, r.server}, Flows: []skbtrace.Flow{f}, TracepointsOnly: true})
	check(t, err)
	t.Cleanup(func() { check(t, tr.Close()) })
	if tr.Hooks() {
		t.Error("it has programs for hooks")
	}
	check(t, in(t, r.client, "ping", "-c1", "-W5", serverAddr))
	seen := names(t, collect(t, tr, nil), r.spaces())
	for _, want := range []string{"client xmit eth0", "router receive left", "router xmit right", "server receive eth0", "server xmit eth0", "client receive eth0"} {
		if !slices.Contains(seen, want) {
			t.Errorf("not seen at %s but at %v", want, seen)
		}
	}
}
