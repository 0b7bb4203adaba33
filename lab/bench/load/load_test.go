package load

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/testnet"
)

// wired are two namespaces on a veth pair.
func wired(t testing.TB) (client, server Place) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "10.1.0.1/24", b, "eth0", "10.1.0.2/24")
	return Place{NS: a, Addr: netip.MustParseAddr("10.1.0.1"), Label: "client"},
		Place{NS: b, Addr: netip.MustParseAddr("10.1.0.2"), Label: "server"}
}

// received is the kernel's own count of what came in at a place's device.
func received(t testing.TB, p Place) (bytes, packets float64) {
	t.Helper()
	l, err := testnet.Handle(t, p.NS).LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	s := l.Attrs().Statistics
	return float64(s.RxBytes), float64(s.RxPackets)
}

// limit lets a place send no faster than bytes a second, with a queue of so many
// bytes before it.
func limit(t testing.TB, p Place, bytesPerSecond uint64, queue uint32) {
	t.Helper()
	h := testnet.Handle(t, p.NS)
	l, err := h.LinkByName("eth0")
	if err == nil {
		err = h.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       bytesPerSecond, Buffer: 16 << 10, Limit: queue,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// measure runs a job that must succeed.
func measure(t testing.TB, j Job) Figures {
	t.Helper()
	f, err := Native{}.Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	for name := range f {
		if _, ok := Means(name); !ok {
			t.Errorf("nobody says what %q means", name)
		}
	}
	t.Logf("%v", f)
	return f
}

// near reports a figure that is further from what it must be than a share of it.
func near(t testing.TB, f Figures, name string, want, share float64) {
	t.Helper()
	got, ok := f[name]
	if !ok || got < want*(1-share) || got > want*(1+share) {
		t.Errorf("%s is %v (there: %v), want %v ± %v %%", name, got, ok, want, share*100)
	}
}

// mayCarry reports a throughput of TCP that a wire of so many bytes a second does
// not give: of each 1514 bytes of frame 1448 are payload. A busy machine may
// leave the wire idle now and then, but nothing makes it carry more.
func mayCarry(t testing.TB, f Figures, wire float64) {
	t.Helper()
	if full := wire * 8 * 1448.0 / 1514; f[Throughput] > 1.1*full || f[Throughput] < 0.2*full {
		t.Errorf("%v bit/s arrived over a wire for %v", f[Throughput], full)
	}
}

func TestMeasurementsEndWithContext(t *testing.T) {
	client, server := wired(t)
	for name := range workloads {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := Native{}.Run(ctx, Job{Workload: name, Client: client, Server: server, Duration: time.Minute})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s ended with %v", name, err)
		}
	}
}

func TestJobsThatCannotBeRun(t *testing.T) {
	client, server := wired(t)
	good := Job{Workload: TCPRequests, Client: client, Server: server, Duration: time.Second}
	for _, c := range []struct {
		want string
		spot func(*Job)
	}{
		{`no workload "sctp"`, func(j *Job) { j.Workload = "sctp" }},
		{"cannot measure for 0s", func(j *Job) { j.Duration = 0 }},
		{"cannot run 5000 streams", func(j *Job) { j.Streams = 5000 }},
		{"no client or no server", func(j *Job) { j.Server.NS = nil }},
		{"only IPv4", func(j *Job) { j.Server.Addr = netip.MustParseAddr("fd00::1") }},
		{"port is not given", func(j *Job) { j.To = netip.MustParseAddrPort("10.96.0.1:80") }},
		{"holds 16 to", func(j *Job) { j.Workload, j.Size = UDPStream, 4 }},
		{"needs its own server", func(j *Job) { j.Workload, j.Served, j.Port = TCPStream, true, 80 }},
		{"cannot be offered at a rate", func(j *Job) { j.Workload, j.Rate = HTTP, 100 }},
		{"in one stream", func(j *Job) { j.Workload, j.Streams = UDPPackets, 2 }},
	} {
		j := good
		c.spot(&j)
		_, err := Native{}.Run(t.Context(), j)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "from client to server") && j.Workload != "sctp" {
			t.Errorf("%+v gave %v, want %q", j, err, c.want)
		}
	}
}

// An error says who could not reach whom.
func TestUnreachableServer(t *testing.T) {
	client, server := wired(t)
	for name, want := range map[string]string{TCPStream: "network is unreachable", UDPRequests: "network is unreachable", TCPConnects: "network is unreachable"} {
		_, err := Native{}.Run(t.Context(), Job{
			Workload: name, Client: client, Server: server, Duration: time.Second,
			To: netip.MustParseAddrPort("10.9.0.1:80"), Port: 80,
		})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "from client to 10.9.0.1:80") {
			t.Errorf("%s to a server without a route gave %v", name, err)
		}
	}
}

// Over a path that has gone dead a measurement ends with an error; it does not
// hang, and it does not report nought.
func TestDeadPath(t *testing.T) {
	client, server := wired(t)
	for _, name := range []string{UDPStream, UDPRequests} {
		_, err := Native{}.Run(t.Context(), Job{ // to an address where nobody is
			Workload: name, Client: client, Server: server, Duration: 100 * time.Millisecond,
			To: netip.MustParseAddrPort("10.1.0.3:99"), Port: 99,
		})
		if err == nil {
			t.Errorf("%s: an address where nobody is answered", name)
		}
	}
	pairs, err := connect(t.Context(), Job{Client: client, Server: server, Streams: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer closePairs(pairs)
	h := testnet.Handle(t, server.NS)
	eth0, err := h.LinkByName("eth0")
	if err == nil {
		err = h.LinkSetDown(eth0)
	}
	if err != nil {
		t.Fatal(err)
	}
	var s stream
	j := Job{Duration: 100 * time.Millisecond}
	if err := s.receive(t.Context(), pairs[0].server, j.open(), make([]byte, 1)); err != nil || s.bytes != 0 {
		t.Errorf("a dead path gave %d bytes, %v", s.bytes, err)
	}
	if f, err := streamFigures([]stream{s}, Job{Server: server}); err == nil {
		t.Errorf("a dead path gave %v", f)
	}
}
