package bench

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
func wired(t testing.TB) (client, server Endpoint) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "10.1.0.1/24", b, "eth0", "10.1.0.2/24")
	return Endpoint{NS: a, Addr: netip.MustParseAddr("10.1.0.1"), Label: "client"},
		Endpoint{NS: b, Addr: netip.MustParseAddr("10.1.0.2"), Label: "server"}
}

// received is the kernel's own count of what came in at a device.
func received(t testing.TB, e Endpoint) (bytes, packets uint64) {
	t.Helper()
	l, err := testnet.Handle(t, e.NS).LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	s := l.Attrs().Statistics
	return s.RxBytes, s.RxPackets
}

func TestStreamCountsWhatTheDeviceCounts(t *testing.T) {
	client, server := wired(t)
	before, _ := received(t, server)
	s, err := Stream(t.Context(), client, server, 300*time.Millisecond, DefaultWriteSize)
	if err != nil {
		t.Fatal(err)
	}
	after, _ := received(t, server)
	// Every byte crosses the wire once, and headers come on top: at most 66 of
	// them (Ethernet 14, IP 20, TCP with time stamps 32) on each segment.
	wire := float64(after - before)
	if least, most := float64(s.Bytes), float64(s.Bytes)*(1+66.0/float64(s.MSS))+1e4; wire < least || wire > most {
		t.Errorf("the stream says %d bytes were received, the device %.0f, not between %.0f and %.0f", s.Bytes, wire, least, most)
	}
	if s.MSS != 1448 || s.PathMTU != 1500 { // less IP 20 and TCP with time stamps 32
		t.Errorf("MSS %d with path MTU %d, want 1448 and 1500", s.MSS, s.PathMTU)
	}
	if want := float64(s.Bytes) * 8 / s.Duration.Seconds(); s.BitsPerSecond != want {
		t.Errorf("%v bit/s, want %v", s.BitsPerSecond, want)
	}
	if s.Duration < 300*time.Millisecond {
		t.Errorf("a stream of 300 ms was received in %v", s.Duration)
	}
}

func TestRequestResponseCrossesTheWire(t *testing.T) {
	client, server := wired(t)
	_, before := received(t, server)
	h, err := RequestResponse(t.Context(), client, server, 200*time.Millisecond, 64)
	if err != nil {
		t.Fatal(err)
	}
	_, after := received(t, server)
	if h.TotalCount() == 0 || after-before < uint64(h.TotalCount()) {
		t.Errorf("%d requests in %d packets", h.TotalCount(), after-before)
	}
	if h.Min() <= 0 || h.ValueAtQuantile(50) > h.ValueAtQuantile(99) || h.ValueAtQuantile(99) > h.Max() {
		t.Errorf("latencies from %d ns over %d and %d to %d", h.Min(), h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.Max())
	}
}

// A request of more than one segment is not an answer until all of it is there.
func TestRequestResponseLarge(t *testing.T) {
	client, server := wired(t)
	const size = 1 << 20
	before, _ := received(t, client)
	h, err := RequestResponse(t.Context(), client, server, 100*time.Millisecond, size)
	if err != nil {
		t.Fatal(err)
	}
	after, _ := received(t, client)
	if got, want := after-before, uint64(h.TotalCount())*size; h.TotalCount() == 0 || got < want {
		t.Errorf("%d answers of %d bytes in %d bytes", h.TotalCount(), size, got)
	}
}

func TestMeasurementsEndWithContext(t *testing.T) {
	client, server := wired(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Stream(ctx, client, server, time.Hour, DefaultWriteSize); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stream ended with %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := RequestResponse(ctx, client, server, time.Minute, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("requests ended with %v", err)
	}
}

// Over a path that has gone dead a stream ends with an error; it does not hang.
func TestStreamOverDeadPath(t *testing.T) {
	client, server := wired(t)
	p, err := connect(t.Context(), client, server)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	h := testnet.Handle(t, server.NS)
	eth0, err := h.LinkByName("eth0")
	if err == nil {
		err = h.LinkSetDown(eth0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, err := p.stream(t.Context(), 100*time.Millisecond, DefaultWriteSize); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dead path gave %+v, %v", s, err)
	}
}

func TestUnreachableServer(t *testing.T) {
	client, server := wired(t)
	server.Addr = netip.MustParseAddr("10.9.0.1") // an address that the client has no route to
	h := testnet.Handle(t, server.NS)
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr("10.9.0.1/32")
	if err == nil {
		err = h.AddrAdd(lo, a)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = RequestResponse(t.Context(), client, server, time.Second, 1)
	if err == nil || !strings.Contains(err.Error(), "network is unreachable") {
		t.Errorf("a server without a route gave %v", err)
	}
}
