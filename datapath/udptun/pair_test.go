package udptun

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
	"slipway/topology"
)

const (
	underlayMTU = 1500
	innerMTU    = underlayMTU - 28
	port        = 8285
)

// node is one end of a test network: a namespace with a wire to the other one,
// eth0, and a running tunnel on flannel0.
type node struct {
	ns     *netns.NS
	h      *nl.Handle
	tunnel *Tunnel
	outer  netip.Addr
	inner  netip.Addr
	subnet netip.Prefix
}

func (n *node) lease() datapath.TunnelLease {
	return datapath.TunnelLease{Subnet: n.subnet, Remote: netip.AddrPortFrom(n.outer, port)}
}

var (
	addrA, addrB   = netip.MustParseAddr("10.244.1.0"), netip.MustParseAddr("10.244.2.0")
	outerA, outerB = netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("192.168.77.2")
)

// newPair joins two nodes, each with a lease for the other.
func newPair(t testing.TB, implA, implB topology.UDPImplementation) (a, b *node) {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.TUN)
	a = &node{ns: testnet.NewNS(t), outer: outerA, inner: addrA}
	b = &node{ns: testnet.NewNS(t), outer: outerB, inner: addrB}
	testnet.Wire(t, a.ns, "eth0", "192.168.77.1/24", b.ns, "eth0", "192.168.77.2/24")
	a.start(t, implA)
	b.start(t, implB)
	a.waitLink(t)
	b.waitLink(t)
	a.tunnel.SetLeases([]datapath.TunnelLease{b.lease()})
	b.tunnel.SetLeases([]datapath.TunnelLease{a.lease()})
	return a, b
}

// waitLink waits until eth0 sends. The end of a veth pair that was set up first
// drops everything until a worker of the kernel has noticed that the other end
// came up (net/core/link_watch.c), which can take a second and more.
func (n *node) waitLink(t testing.TB) {
	t.Helper()
	waitFor(t, "eth0 to come up", func() bool {
		link, err := n.h.LinkByName("eth0")
		return err == nil && link.Attrs().OperState == netlink.OperUp
	})
}

func (n *node) config(impl topology.UDPImplementation) datapath.UDPTunnel {
	return datapath.UDPTunnel{Device: "flannel0", MTU: innerMTU, Local: netip.AddrPortFrom(n.outer, port), Implementation: impl}
}

func (n *node) start(t testing.TB, impl topology.UDPImplementation) {
	t.Helper()
	n.subnet = netip.PrefixFrom(n.inner, 24)
	// Router solicitations on flannel0 would count as drops.
	err := n.ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if n.tunnel, err = Open(n.ns, n.config(impl), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	n.h = testnet.Handle(t, n.ns)
	n.configureDevice(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.tunnel.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("tunnel of %s: %v", n.inner, err)
		}
		if err := n.tunnel.Close(); err != nil {
			t.Error(err)
		}
	})
}

// configureDevice does what the applier does for flannel0: address, up, route.
func (n *node) configureDevice(t testing.TB) {
	t.Helper()
	link, err := n.h.LinkByName("flannel0")
	if err != nil {
		t.Fatal(err)
	}
	if link.Attrs().MTU != innerMTU {
		t.Fatalf("flannel0 has MTU %d, want %d", link.Attrs().MTU, innerMTU)
	}
	address, err := netlink.ParseAddr(n.inner.String() + "/32")
	if err != nil {
		t.Fatal(err)
	}
	_, network, err := net.ParseCIDR("10.244.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.h.AddrAdd(link, address); err != nil {
		t.Fatal(err)
	}
	if err := n.h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	if err := n.h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: network}); err != nil {
		t.Fatal(err)
	}
}

// dial connects a socket that lives in the node's namespace.
func (n *node) dial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	var c net.Conn
	err := n.ns.Do(func() (err error) {
		c, err = net.DialTimeout(network, address, 30*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (n *node) listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var l net.Listener
	err := n.ns.Do(func() (err error) {
		l, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (n *node) listenPacket(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	err := n.ns.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

// waitFor polls until ok, or fails the test.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// combinations are all pairs of implementations, and how much to send through
// each in seconds.
var combinations = []struct {
	name  string
	a, b  topology.UDPImplementation
	bytes int64
}{
	{"simple-simple", topology.UDPSimple, topology.UDPSimple, 16 << 20},
	{"batched-batched", topology.UDPBatched, topology.UDPBatched, 64 << 20},
	{"simple-batched", topology.UDPSimple, topology.UDPBatched, 16 << 20},
	{"batched-simple", topology.UDPBatched, topology.UDPSimple, 16 << 20},
}
