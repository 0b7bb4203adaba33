package bpf_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/udptun"
	"slipway/internal/nl"
	"slipway/internal/testnet"
	"slipway/topology"
)

// udpRig is two nodes of flannel-udp on one wire, each with a bridge and a pod on
// it, as flannel has them.
type udpRig struct{ nodes [2]udpNode }

type udpNode struct {
	node
	subnet string
	udp    datapath.UDPTunnel
}

const udpMTU = underlayMTU - 28

func newUDPRig(t testing.TB) *udpRig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.BPF)
	r := &udpRig{}
	for i := range r.nodes {
		n := &r.nodes[i]
		n.ns, n.pod = testnet.NewNS(t), testnet.NewNS(t)
		n.podAddr = netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 2})
		n.subnet = fmt.Sprintf("10.244.%d.0/24", i+1)
		n.udp = datapath.UDPTunnel{
			Device: "flannel0", Underlay: "eth0", MTU: udpMTU, Network: netip.MustParsePrefix("10.244.0.0/16"),
			Local: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 30, 0, byte(i + 1)}), 8285),
		}
		forward(t, n.ns)
		n.addBridge(t)
	}
	a, b := &r.nodes[0], &r.nodes[1]
	testnet.Wire(t, a.ns, "eth0", "172.30.0.1/24", b.ns, "eth0", "172.30.0.2/24")
	for i := range r.nodes {
		other := &r.nodes[1-i]
		r.nodes[i].udp.Leases = []datapath.TunnelLease{{Subnet: netip.MustParsePrefix(other.subnet), Remote: other.udp.Local}}
	}
	return r
}

// addBridge plugs the pod into cni0 with the tunnel's MTU.
func (n *udpNode) addBridge(t testing.TB) {
	t.Helper()
	h, pod := testnet.Handle(t, n.ns), testnet.Handle(t, n.pod)
	gateway := n.podAddr.Prev()
	testnet.Wire(t, n.ns, "veth0", "169.254.0.1/32", n.pod, "eth0", n.podAddr.String()+"/24")
	check(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}))
	bridge, port, eth := mustLink(t, h, "cni0"), mustLink(t, h, "veth0"), mustLink(t, pod, "eth0")
	check(t, h.LinkSetMaster(port, bridge))
	check(t, h.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: gateway.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
	check(t, h.LinkSetUp(bridge))
	check(t, pod.LinkSetMTU(eth, n.udp.MTU))
	check(t, pod.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice()}))
}

// carry starts the implementation on the node until the test ends.
func (n *udpNode) carry(t testing.TB, with topology.UDPImplementation) {
	t.Helper()
	n.udp.Implementation = with
	if with == topology.UDPeBPF {
		check(t, n.ns.Do(func() error { return nl.AddExternalGPE(n.udp.Device, n.udp.MTU, int(n.udp.Local.Port())) }))
		n.configure(t)
		check(t, bpf.AttachUDP(n.ns, n.udp))
		return
	}
	tun, err := udptun.Open(n.ns, n.udp, slog.New(slog.DiscardHandler))
	check(t, err)
	n.configure(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tun.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("tunnel ended with: %v", err)
		}
		if err := tun.Close(); err != nil {
			t.Errorf("close tunnel: %v", err)
		}
	})
}

// configure gives flannel0 its address and the route for all pods.
func (n *udpNode) configure(t testing.TB) {
	t.Helper()
	h := testnet.Handle(t, n.ns)
	l := mustLink(t, h, n.udp.Device)
	first := netip.MustParsePrefix(n.subnet).Addr()
	check(t, h.AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(first.AsSlice())}))
	check(t, h.LinkSetUp(l))
	check(t, h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: mustCIDR(t, n.udp.Network.String()), Scope: netlink.SCOPE_LINK}))
}

func (n *udpNode) stats(t testing.TB) bpf.UDPCounters {
	t.Helper()
	c, err := bpf.UDPStats(n.ns, n.udp)
	check(t, err)
	return c
}
