package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// What was read later may have happened earlier: nothing is handed over before
// it, and each socket's own order is kept also where time stamps are equal.
func TestMergerKeepsOrder(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, int64(ms)*1e6) }
	event := func(device string, ms int, dir Direction, read int) held {
		return held{Event: Event{Device: device, Time: at(ms), Direction: dir}, read: at(read)}
	}
	m := newMerger(3)
	m.add(0, event("a1", 10, In, 12))
	m.add(0, event("a2", 10, Out, 12)) // same stamp: before or after a1 only by its socket
	m.add(1, event("b1", 30, In, 31))
	names := func(events []Event) (out []string) {
		for _, e := range events {
			out = append(out, e.Device)
		}
		return out
	}
	if got := m.take(at(11)); len(got) > 0 {
		t.Errorf("handed over before it was due: %v", names(got))
	}
	m.add(2, event("c1", 5, In, 40)) // read last, happened first
	m.add(2, event("c2", 10, Out, 40))
	if d := cmp.Diff([]string{"c1", "c2", "a1", "a2"}, names(m.take(at(12)))); d != "" {
		t.Errorf("due at 12 ms, with what happened before (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]string{"b1"}, names(m.take(at(100)))); d != "" {
		t.Errorf("the rest (-want +got)\n%s", d)
	}
	if got := m.take(at(1000)); len(got) > 0 || m.Len() != 0 {
		t.Errorf("left: %v", names(got))
	}
}

// pair is two namespaces with a wire.
func pair(t *testing.T) (a, b *netns.NS) {
	t.Helper()
	testnet.Need(t, testnet.Root)
	a, b = testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "10.9.0.1/24", b, "eth0", "10.9.0.2/24")
	return a, b
}

// burst sends numbered datagrams for a while and returns how many. They go to a
// socket that reads nothing: what the wire carries is what counts.
func burst(t *testing.T, from, to *netns.NS, length time.Duration) int {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	err := to.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", "10.9.0.2:9")
		return err
	})
	if err == nil {
		defer server.Close() //nolint:errcheck // test
		err = from.Do(func() (err error) {
			client, err = net.Dial("udp4", "10.9.0.2:9")
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // test
	sent := 0
	for end := time.Now().Add(length); time.Now().Before(end); sent++ {
		if _, err := fmt.Fprintf(client, "%d", sent); err != nil {
			t.Fatal(err)
		}
	}
	return sent
}

// serial is what a packet of a burst says, behind Ethernet, IPv4 and UDP.
func serial(t *testing.T, frame []byte) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimRight(string(frame[14+20+8:]), "\x00")) // short frames may be padded
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Under load every packet is in the file, on each side of the wire, in order, or
// is counted as dropped: nothing is lost silently. (Between the two sides the
// kernel itself may be later, on a machine without a free CPU, than a reader can
// wait: a packet gets its time when it is queued and is seen when a CPU takes it.)
func TestStreamCountsWhatWasSent(t *testing.T) {
	a, b := pair(t)
	places := []Place{{Label: "ns/a", NS: a}, {Label: "b", NS: b}}
	c, err := Open(places, Options{RingBytes: 32 << 20, Raw: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	path := filepath.Join(t.TempDir(), "load.pcapng")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := NewPcapngWriter(f, PcapngOptions{Filter: "udp", SnapLen: 1000})
	seen := map[string]int{}
	last := map[string]int{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- c.Stream(ctx, func(events []Event) error {
			for _, e := range events {
				if !bytes.Contains(e.Data, []byte{10, 9, 0, 1, 10, 9, 0, 2}) { // ARP, IPv6
					continue
				}
				seen[e.Place.Label]++
				if n := serial(t, e.Data); n < last[e.Place.Label] {
					t.Errorf("%s: packet %d after packet %d", e.Place.Label, n, last[e.Place.Label])
				} else {
					last[e.Place.Label] = n
				}
				if err := w.Write(e); err != nil {
					return err
				}
			}
			return w.Flush()
		})
	}()
	sent := burst(t, a, b, 2*time.Second)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(c.DroppedIn()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dropped := c.DroppedIn()
	t.Logf("%d sent in 2 s; dropped %v", sent, dropped)
	for _, p := range places {
		// What was dropped may be ARP or IPv6 as well: the device has counted these, too.
		others := onWire(t, p.NS) - sent
		if got := seen[p.Label] + dropped[p.Label]; got < sent || got > sent+others {
			t.Errorf("%s: %d taken and %d dropped, of %d sent and %d others", p.Label, seen[p.Label], dropped[p.Label], sent, others)
		}
	}
	if c.Dropped() != dropped["ns/a"]+dropped["b"] {
		t.Errorf("dropped %d in all, but by place %v", c.Dropped(), dropped)
	}
	want := map[string]int{"ns/a/eth0": seen["ns/a"], "b/eth0": seen["b"]}
	if d := cmp.Diff(want, inFile(t, path)); d != "" {
		t.Errorf("packets in the file (-want +got)\n%s", d)
	}
}

// onWire counts the packets that went through a namespace's device, both ways.
func onWire(t *testing.T, ns *netns.NS) int {
	t.Helper()
	l, err := testnet.Handle(t, ns).LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	s := l.Attrs().Statistics
	return int(s.RxPackets + s.TxPackets)
}

// inFile counts how many packets an interface has in a file.
func inFile(t *testing.T, path string) map[string]int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	byID, out := map[int]int{}, map[string]int{}
	for {
		_, info, err := r.ZeroCopyReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		byID[info.InterfaceIndex]++
	}
	for id, n := range byID {
		intf, err := r.Interface(id)
		if err != nil {
			t.Fatal(err)
		}
		out[intf.Name] = n
	}
	return out
}

// What passed before the end is handed over, though the rings still have it.
func TestStreamTakesWhatWasBeforeItsEnd(t *testing.T) {
	a, b := pair(t)
	echo(t, b, "10.9.0.2:7")
	c, err := Open([]Place{{Label: "a", NS: a}, {Label: "b", NS: b}}, Options{RingBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	p, err := Send(a, ProbeUDP, netip.MustParseAddrPort("10.9.0.2:7"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() //nolint:errcheck // test
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	cancel() // at once: everything is still in the rings
	var lines []string
	err = c.Stream(ctx, func(events []Event) error {
		for _, e := range events {
			if e.Packet.IP.SrcPort == 7 || e.Packet.IP.DstPort == 7 {
				lines = append(lines, fmt.Sprintf("%s/%s %s to %s", e.Place.Label, e.Device, e.Direction, e.Packet.IP.Dst))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a/eth0 out to 10.9.0.2", "b/eth0 in to 10.9.0.2", "b/eth0 out to 10.9.0.1", "a/eth0 in to 10.9.0.1"}
	if d := cmp.Diff(want, lines); d != "" {
		t.Errorf("stream (-want +got)\n%s", d)
	}
}
