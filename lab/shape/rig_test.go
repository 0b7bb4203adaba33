package shape_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
	"slipway/lab/shape"
	"slipway/topology"
)

// The rig is one segment: a bridge in a fabric namespace and two nodes at its
// ports p1 and p2, whose ends in the nodes are eth0.
type rig struct {
	fabric *netns.NS
	nodes  [2]*netns.NS
	relays [2]*shape.Relay
}

func address(i int) string { return fmt.Sprintf("172.31.0.%d", i+1) }

func port(i int) string { return fmt.Sprintf("p%d", i+1) }

// newRig builds the segment with veth pairs, or with TAPs and relays where the
// segment needs them.
func newRig(t *testing.T, seg topology.Segment, sup shape.Support) *rig {
	t.Helper()
	testnet.Need(t, testnet.Root)
	r := &rig{fabric: testnet.NewNS(t)}
	h := testnet.Handle(t, r.fabric)
	check(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	check(t, h.LinkSetUp(mustLink(t, h, "br0")))
	for i := range r.nodes {
		r.nodes[i] = testnet.NewNS(t)
		if shape.NeedsRelay(seg, sup) {
			r.addRelay(t, i, time.Duration(seg.Delay))
		} else {
			testnet.Wire(t, r.fabric, port(i), "", r.nodes[i], "eth0", address(i)+"/24")
		}
		check(t, h.LinkSetMaster(mustLink(t, h, port(i)), mustLink(t, h, "br0")))
	}
	return r
}

func (r *rig) addRelay(t *testing.T, i int, delay time.Duration) {
	t.Helper()
	testnet.Need(t, testnet.TUN)
	down := shape.Port{NS: r.fabric, Name: port(i)}
	up := shape.Port{NS: r.nodes[i], Name: "eth0"}
	for _, p := range []shape.Port{down, up} {
		check(t, shape.CreateTap(p))
		check(t, shape.CreateTap(p)) // again: nothing happens
		h := testnet.Handle(t, p.NS)
		check(t, h.LinkSetUp(mustLink(t, h, p.Name)))
	}
	h := testnet.Handle(t, r.nodes[i])
	addr, err := netlink.ParseAddr(address(i) + "/24")
	check(t, err)
	check(t, h.AddrAdd(mustLink(t, h, "eth0"), addr))
	r.run(t, i, delay)
}

// run starts the relay of a port until the test ends.
func (r *rig) run(t *testing.T, i int, delay time.Duration) {
	t.Helper()
	relay, err := shape.OpenRelay(shape.Port{NS: r.fabric, Name: port(i)}, shape.Port{NS: r.nodes[i], Name: "eth0"}, delay)
	check(t, err)
	r.relays[i] = relay
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay ended with: %v", err)
		}
	})
}

// transfer sends size random bytes over TCP to the address, which the second
// namespace has, and compares what arrives.
func transfer(t *testing.T, from, to *netns.NS, addr string, size int64) {
	t.Helper()
	l := listenTCP(t, to, addr)
	type result struct {
		sum []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer c.Close() //nolint:errcheck // read only
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		hash := sha256.New()
		_, err = io.Copy(hash, c)
		got <- result{hash.Sum(nil), err}
	}()
	c := dialTCP(t, from, l.Addr().String())
	check(t, c.SetDeadline(time.Now().Add(time.Minute)))
	hash := sha256.New()
	source := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{2}), size), hash)
	_, err := io.CopyBuffer(struct{ io.Writer }{c}, source, make([]byte, 1<<18))
	check(t, err)
	check(t, c.Close())
	arrived := <-got
	check(t, arrived.err)
	if !bytes.Equal(arrived.sum, hash.Sum(nil)) {
		t.Error("what arrived is not what was sent")
	}
}

// apply shapes both ends of both ports and returns the fabric ends' report.
func (r *rig) apply(t *testing.T, seg topology.Segment, sup shape.Support) (down, up shape.Report) {
	t.Helper()
	for i := range r.nodes {
		var err error
		down, err = shape.ApplyRateLoss(r.fabric, port(i), seg, sup)
		check(t, err)
		up, err = shape.ApplyUplinkRate(r.nodes[i], "eth0", seg, sup)
		check(t, err)
	}
	return down, up
}

// listenTCP and dialTCP open sockets in namespaces; they stay there.
func listenTCP(t *testing.T, ns *netns.NS, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	check(t, ns.Do(func() error {
		var err error
		l, err = net.Listen("tcp4", addr+":0")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dialTCP(t *testing.T, ns *netns.NS, addr string) net.Conn {
	t.Helper()
	var c net.Conn
	check(t, ns.Do(func() error {
		var err error
		c, err = net.DialTimeout("tcp4", addr, 10*time.Second)
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func listenUDP(t *testing.T, ns *netns.NS, addr string) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	check(t, ns.Do(func() error {
		var err error
		c, err = net.ListenPacket("udp4", addr+":0")
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

func mustLink(t *testing.T, h *nl.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	check(t, err)
	return l
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
