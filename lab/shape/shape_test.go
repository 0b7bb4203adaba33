package shape_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"gonum.org/v1/gonum/stat/distuv"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/shape"
	"slipway/topology"
)

func segment() topology.Segment { return topology.Segment{Name: "rack1", MTU: 1500} }

func TestDelay(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	sup := shape.Probe()
	seg := segment()
	const delay = 20 * time.Millisecond
	seg.Delay = topology.Duration(delay)
	r := newRig(t, seg, sup)
	if down, _ := r.apply(t, seg, sup); down.Delay == "" {
		t.Errorf("no implementation of delay: %+v", down)
	}
	roundTrip(t, r) // the first one resolves the neighbour
	best := time.Hour
	for range 10 {
		best = min(best, roundTrip(t, r))
	}
	// Once on the way there and once on the way back. At both ports of each way
	// it would be four times.
	if best < 2*delay || best >= 4*delay {
		t.Errorf("round trip took %v at a delay of %v, want at least twice and less than four times that", best, delay)
	}
}

func TestRelayChangesDelay(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	seg := segment()
	seg.Delay = topology.Duration(time.Millisecond)
	r := newRig(t, seg, shape.Support{TAP: true})
	roundTrip(t, r)
	for _, relay := range r.relays {
		relay.SetDelay(100 * time.Millisecond)
	}
	if took := roundTrip(t, r); took < 200*time.Millisecond {
		t.Errorf("round trip took %v after the delay was set to 100 ms", took)
	}
}

// Large packets pass the relay as such, which the number of frames shows, and
// arrive as they were.
func TestRelayKeepsLargePacketsWhole(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	seg := segment()
	seg.Delay = topology.Duration(100 * time.Microsecond)
	r := newRig(t, seg, shape.Support{TAP: true})
	const size = 32 << 20
	transfer(t, r.nodes[0], r.nodes[1], address(1), size)
	frames := r.relays[1].Stats().Down
	if frames == 0 || size/frames < 4*1500 {
		t.Errorf("%d bytes took %d frames: cut to the MTU", size, frames)
	}
}

// Loss acts once: of datagrams one way, the share that is set.
func TestLoss(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.BPF)
	sup := shape.Probe()
	seg := segment()
	seg.Loss = 20
	r := newRig(t, seg, sup)
	warmUp(t, r)
	r.apply(t, seg, sup)

	const sent = 2000
	to := listenUDP(t, r.nodes[1], address(1))
	check(t, to.SetReadBuffer(4<<20))
	from := listenUDP(t, r.nodes[0], address(0))
	arrived := sendNumbered(t, from, to, sent)

	// Two-sided, at 10^-6: the test fails by chance once in a million runs.
	survivors := distuv.Binomial{N: sent, P: 0.8}
	low := survivors.CDF(float64(arrived))
	high := 1 - survivors.CDF(float64(arrived-1))
	if p := 2 * min(low, high); p < 1e-6 {
		t.Errorf("%d of %d arrived at a loss of 20%%: p = %g", arrived, sent, p)
	}
}

func TestRate(t *testing.T) {
	sup := shape.Probe()
	if !sup.TBF && !sup.Netem {
		testnet.Need(t, testnet.Netem)
	}
	seg := segment()
	seg.Rate = 50e6
	r := newRig(t, seg, sup)
	r.apply(t, seg, sup)
	for name, way := range map[string][2]int{"there": {0, 1}, "back": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			got := throughput(t, r, way[0], way[1], time.Second)
			if limit := 1.1 * float64(seg.Rate); got > limit {
				t.Errorf("%.1f Mbit/s at a rate of 50", got/1e6)
			}
			if got < 0.1*float64(seg.Rate) {
				t.Errorf("%.1f Mbit/s at a rate of 50: hardly anything passes", got/1e6)
			}
		})
	}
}

// All three at once, on TAPs, as they run where netem is not.
func TestRateDelayAndLossOverRelay(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.BPF)
	sup := shape.Probe()
	if !sup.TBF {
		t.Skipf("needs tbf: %q", sup.Missing)
	}
	sup.Netem = false
	seg := segment()
	const delay = 5 * time.Millisecond
	seg.Rate, seg.Delay, seg.Loss = 50e6, topology.Duration(delay), 0.01
	r := newRig(t, seg, sup)
	down, up := r.apply(t, seg, sup)
	want := []shape.Report{
		{Rate: shape.TBF, Delay: shape.Tap, Loss: shape.BPF, Changed: true},
		{Rate: shape.TBF, Changed: true},
	}
	if diff := cmp.Diff(want, []shape.Report{down, up}); diff != "" {
		t.Errorf("reports of down and up (-want +got):\n%s", diff)
	}
	if took := roundTrip(t, r); took < 2*delay {
		t.Errorf("round trip took %v at a delay of %v", took, delay)
	}
	if got := throughput(t, r, 0, 1, time.Second); got > 1.1*float64(seg.Rate) {
		t.Errorf("%.1f Mbit/s at a rate of 50", got/1e6)
	}
}

// The way up is limited too, on its own: many receivers do not add up.
func TestUplinkRate(t *testing.T) {
	sup := shape.Probe()
	if !sup.TBF && !sup.Netem {
		testnet.Need(t, testnet.Netem)
	}
	seg := segment()
	seg.Rate = 50e6
	r := newRig(t, seg, sup)
	if _, err := shape.ApplyUplinkRate(r.nodes[0], "eth0", seg, sup); err != nil {
		t.Fatal(err)
	}
	if got := throughput(t, r, 0, 1, time.Second); got > 1.1*float64(seg.Rate) {
		t.Errorf("%.1f Mbit/s up at a rate of 50", got/1e6)
	}
}

func TestApplyTwiceAndRemove(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.BPF)
	sup := shape.Probe()
	r := newRig(t, segment(), sup)
	before := settings(t, r.fabric, port(0))
	shaped := segment()
	shaped.Rate, shaped.Loss = 1e9, 0.1

	steps := []struct {
		name    string
		seg     topology.Segment
		changed bool
	}{
		{"nothing wanted", segment(), false},
		{"shaped", shaped, true},
		{"again", shaped, false},
		{"other rate", func() topology.Segment { s := shaped; s.Rate = 2e9; return s }(), true},
		{"no loss", func() topology.Segment { s := shaped; s.Rate, s.Loss = 2e9, 0; return s }(), true},
		{"nothing", segment(), true},
		{"nothing again", segment(), false},
	}
	for _, s := range steps {
		got, err := shape.ApplyRateLoss(r.fabric, port(0), s.seg, sup)
		check(t, err)
		if got.Changed != s.changed {
			t.Errorf("%s: changed %v, want %v", s.name, got.Changed, s.changed)
		}
		if (got.Rate != "") != (s.seg.Rate > 0) || (got.Loss != "") != (s.seg.Loss > 0) {
			t.Errorf("%s: report %+v for %+v", s.name, got, s.seg)
		}
	}
	if diff := cmp.Diff(before, settings(t, r.fabric, port(0))); diff != "" {
		t.Errorf("what is left on the port (-before +after):\n%s", diff)
	}
}

// settings lists what sits on a device's traffic control.
func settings(t *testing.T, ns *netns.NS, dev string) []string {
	t.Helper()
	h := testnet.Handle(t, ns)
	all, err := h.QdiscList(mustLink(t, h, dev))
	check(t, err)
	out := []string{}
	for _, q := range all {
		out = append(out, q.Type()+" "+netlink.HandleStr(q.Attrs().Parent))
	}
	return out
}

func TestUnsupported(t *testing.T) {
	testnet.Need(t, testnet.Root)
	r := newRig(t, segment(), shape.Support{})
	rate, delay, loss := segment(), segment(), segment()
	rate.Rate, delay.Delay, loss.Loss = 1e6, 1, 1
	for _, seg := range []topology.Segment{rate, delay, loss} {
		_, err := shape.ApplyRateLoss(r.fabric, port(0), seg, shape.Support{})
		var unsupported *shape.UnsupportedError
		if !errors.As(err, &unsupported) || unsupported.Segment != "rack1" {
			t.Errorf("%+v on a kernel that can do nothing: %v", seg, err)
		}
	}
}

// roundTrip is how long a datagram takes to node 2 and back.
func roundTrip(t *testing.T, r *rig) time.Duration {
	t.Helper()
	echo := listenUDP(t, r.nodes[1], address(1))
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	c := listenUDP(t, r.nodes[0], address(0))
	to := echo.LocalAddr().(*net.UDPAddr).AddrPort()
	buf := make([]byte, 64)
	for range 20 {
		start := time.Now()
		_, err := c.WriteToUDPAddrPort([]byte("ping"), to)
		check(t, err)
		check(t, c.SetReadDeadline(time.Now().Add(time.Second)))
		_, _, err = c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // the port may still be coming up
		}
		check(t, err)
		return time.Since(start)
	}
	t.Fatal("no answer to 20 datagrams")
	return 0
}

// warmUp waits until the segment carries packets.
func warmUp(t *testing.T, r *rig) { roundTrip(t, r) }

// sendNumbered sends n datagrams and counts the different ones that arrive
// before an end mark, which is repeated until it does.
func sendNumbered(t *testing.T, from, to *net.UDPConn, n int) int {
	t.Helper()
	dst := to.LocalAddr().(*net.UDPAddr).AddrPort()
	b := make([]byte, 8)
	for i := range n {
		binary.BigEndian.PutUint64(b, uint64(i))
		sendUDP(t, from, b, dst)
	}
	for range 50 { // all lost once in 10^35
		binary.BigEndian.PutUint64(b, uint64(n))
		sendUDP(t, from, b, dst)
	}
	seen := map[uint64]bool{}
	check(t, to.SetReadDeadline(time.Now().Add(20*time.Second)))
	for {
		_, _, err := to.ReadFromUDPAddrPort(b)
		check(t, err)
		i := binary.BigEndian.Uint64(b)
		if i == uint64(n) {
			return len(seen)
		}
		seen[i] = true
	}
}

func sendUDP(t *testing.T, c *net.UDPConn, b []byte, to netip.AddrPort) {
	t.Helper()
	_, err := c.WriteToUDPAddrPort(b, to)
	check(t, err)
}

// throughput is what TCP carries from node to node for a while, in bit/s at the
// receiver.
func throughput(t *testing.T, r *rig, from, to int, during time.Duration) float64 {
	t.Helper()
	l := listenTCP(t, r.nodes[to], address(to))
	c := dialTCP(t, r.nodes[from], l.Addr().String())
	in, err := l.Accept()
	check(t, err)
	defer in.Close() //nolint:errcheck // read only
	go func() {
		buf := make([]byte, 1<<17)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	start := time.Now()
	check(t, in.SetReadDeadline(start.Add(during)))
	n, err := io.Copy(io.Discard, in)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("transfer ended early: %v", err)
	}
	return float64(n*8) / time.Since(start).Seconds()
}
