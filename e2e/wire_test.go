package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/datapath/observe"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// quiet is how long nothing may come before a capture counts as complete.
const quiet = 200 * time.Millisecond

// capture listens at the fabric's ports and writes what passed while fn ran.
func capture(t *testing.T, l *testLab, opts observe.Options, fn func()) string {
	t.Helper()
	c, err := observe.Open([]observe.Place{{Label: "fabric", Wire: true, NS: l.at("fabric").ns}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // everything is read by then
	events, err := collectDuring(c, fn)
	if err != nil {
		t.Fatal(err)
	}
	if n := c.Dropped(); n > 0 {
		t.Fatalf("the capture missed %d packets", n)
	}
	path := filepath.Join(t.TempDir(), "wire.pcapng")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := observe.WritePcapng(f, events); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// collectDuring reads a capture while fn runs, because a socket's ring holds only
// some tens of milliseconds of sparse traffic, and then until it is quiet.
func collectDuring(c *observe.Capture, fn func()) ([]observe.Event, error) {
	var events []observe.Event
	var err error
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for last := false; !last && err == nil; {
			wait := time.Millisecond
			select {
			case <-done:
				last, wait = true, quiet
			default:
			}
			var more []observe.Event
			more, err = c.Collect(context.Background(), observe.Match{}, wait)
			events = append(events, more...)
		}
	}()
	func() {
		defer close(done) // also when fn fails the test
		fn()
	}()
	<-ended
	return events, err
}

// tshark decodes a capture: one line a packet, fields separated by "|".
func tshark(t *testing.T, file, filter string, options []string, fields ...string) []string {
	t.Helper()
	args := append([]string{"-n", "-r", file, "-Y", filter, "-T", "fields", "-E", "separator=|"}, options...)
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := run.Cmd{Name: "tshark", Args: args}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// wireFormat is how a mode's packets look between two nodes: how tshark is
// told of ports that it cannot guess, the layers that it must find; if there is
// an outer IP header, the protocol in it; and the UDP port and VNI if any.
type wireFormat struct {
	decode              []string
	layers              string
	outer               bool
	protocol, port, vni string
}

var (
	plainWire = wireFormat{layers: "eth:ethertype:ip:icmp:data"}
	udpWire   = wireFormat{decode: []string{"-d", "udp.port==8285,ip"}, layers: "eth:ethertype:ip:udp:ip:icmp:data", outer: true, protocol: "17", port: "8285"}
	vxlanWire = wireFormat{decode: []string{"-d", "udp.port==8472,vxlan"}, layers: "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:icmp:data", outer: true, protocol: "17", port: "8472", vni: "1"}
	ipipWire  = wireFormat{layers: "eth:ethertype:ip:ip:icmp:data", outer: true, protocol: "4"}
)

// wireOf says how packets must look from one node to another.
func wireOf(s *topology.Snapshot, from, to topology.NodeState) wireFormat {
	near := from.Segment == to.Segment
	switch s.Network.Mode {
	case topology.FlannelUDP:
		return udpWire
	case topology.FlannelVXLAN:
		if near && s.Network.VXLAN.DirectRouting {
			return plainWire
		}
		return vxlanWire
	case topology.CalicoIPIP:
		if near && s.Network.IPIP.Policy == topology.IPIPCrossSubnet {
			return plainWire
		}
		return ipipWire
	default:
		return plainWire
	}
}

// wireCells capture a ping to each other node at the fabric and let tshark say
// what protocol it is.
func wireCells(t *testing.T, l *testLab) {
	testnet.Need(t, testnet.TShark)
	from := l.at("client")
	for _, to := range []*place{l.at("web-c"), l.at("web-d")} {
		t.Run(to.name, func(t *testing.T) { wireCell(t, l, from, to) })
	}
}

func wireCell(t *testing.T, l *testLab, from, to *place) {
	file := capture(t, l, observe.Options{}, func() {
		if out, err := from.ping(to.addr); err != nil {
			t.Errorf("ping %s → %s: %v\n%s", from.name, to.name, err, out)
		}
	})
	a, _ := l.st.Snapshot.NodeByName(from.node)
	b, _ := l.st.Snapshot.NodeByName(to.node)
	format := wireOf(l.st.Snapshot, a, b)
	src, dst, protocols := from.addr.String(), to.addr.String(), "1"
	if format.outer {
		src, dst = a.Address.String()+","+src, b.Address.String()+","+dst
		protocols = format.protocol + ",1"
	}
	want := strings.Join([]string{format.layers, src, dst, protocols, format.port, format.vni}, "|")
	filter := fmt.Sprintf("icmp.type == 8 && ip.src == %s && ip.dst == %s", from.addr, to.addr)
	got := slices.Compact(tshark(t, file, filter, format.decode, "frame.protocols", "ip.src", "ip.dst", "ip.proto", "udp.dstport", "vxlan.vni"))
	if len(got) != 1 || got[0] != want {
		t.Errorf("%s: ping %s (%s) → %s (%s) at the fabric's ports:\nwant every time  %s\ntshark reads     %s",
			l.st.Snapshot.Network.Mode, from.name, from.node, to.name, to.node, want, strings.Join(got, "\n                 "))
	}
}
