package bgp_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/testnet"
	"slipway/topology"
)

// racks are two nodes on 192.0.2.0/24 and a third, node3, behind a router on
// 198.51.100.0/24. The router speaks no BGP.
func racks(t *testing.T) []*node {
	f := newFabric(t)
	a, b := f.node("192.0.2.1/24"), f.node("192.0.2.2/24")
	router := f.node("192.0.2.254/24")
	f.addBridge("br1")
	f.plug(router, "eth1", "198.51.100.254/24")
	c := f.node("198.51.100.3/24")
	must(t, router.Do(func() error { return writeSysctl("net/ipv4/ip_forward", "1") }))

	cfgs := []datapath.Speaker{config(1), config(2), config(3)}
	cfgs[2].RouterID, cfgs[2].Listen = farAddr, farAddr
	far := peer(3, false)
	far.Address = farAddr
	cfgs[0].Peers = []datapath.Peer{peer(2, true), far}
	cfgs[1].Peers = []datapath.Peer{peer(1, false), far}
	cfgs[2].Peers = []datapath.Peer{peer(1, true), peer(2, true)}
	nodes := []*node{{ns: a}, {ns: b}, {ns: c}}
	for i, n := range nodes {
		n.t, n.h, n.cfg = t, testnet.Handle(t, n.ns), cfgs[i]
		gw := "192.0.2.254"
		if n.ns == c {
			gw = "198.51.100.254"
		}
		must(t, n.h.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}))
	}
	return nodes
}

var farAddr = netip.MustParseAddr("198.51.100.3")

// addTunnel makes a TUN that stands in for the tunnel: only the routes matter here.
func addTunnel(t *testing.T, n *node) {
	t.Helper()
	must(t, n.ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tunl0"}, Mode: netlink.TUNTAP_MODE_TUN})
	}))
	l, err := n.h.LinkByName("tunl0")
	must(t, err)
	must(t, n.h.LinkSetUp(l))
}

func TestNextHopsAcrossRacksAndTunnels(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root, testnet.TUN)
	nodes := racks(t)
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.wait("two racks", synced(2, 2))
	}
	a := nodes[0]
	near, far := block(2).String(), block(3).String()
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(append([]string{}, want...), a.routes()); diff != "" {
			t.Errorf("%s: node1's routes (-want +got):\n%s", what, diff)
		}
	}
	check("plain", near+" via 192.0.2.2 dev eth0", far+" via 192.0.2.254 dev eth0")
	if diff := cmp.Diff([]string{
		block(1).String() + " via 198.51.100.254 dev eth0",
		block(2).String() + " via 198.51.100.254 dev eth0",
	}, nodes[2].routes()); diff != "" {
		t.Errorf("node3's routes (-want +got):\n%s", diff)
	}

	// The tunnel is wanted before its device is there: the routes come when it
	// does, without anybody asking again.
	a.cfg.Tunnel = &datapath.SpeakerTunnel{Device: "tunl0", Policy: topology.IPIPAlways}
	must(t, a.p.Configure(a.cfg))
	a.wait("no tunnel yet", func(s bgp.Status) bool { return s.Sync.Unresolved == 2 && s.Sync.Routes == 0 })
	check("no tunnel yet")
	addTunnel(t, a)
	a.wait("tunnel", synced(2, 2))
	check("always", near+" via 192.0.2.2 dev tunl0 onlink", far+" via 198.51.100.3 dev tunl0 onlink")

	a.cfg.Tunnel = &datapath.SpeakerTunnel{Device: "tunl0", Policy: topology.IPIPCrossSubnet, LocalSubnet: netip.MustParsePrefix("192.0.2.0/24")}
	a.cfg.InstallSrc = addr(1)
	must(t, a.p.Configure(a.cfg))
	a.waitRoutes("cross-subnet", near+" via 192.0.2.2 dev eth0 src 192.0.2.1", far+" via 198.51.100.3 dev tunl0 src 192.0.2.1 onlink")
	if got := a.p.Status().Sync; got.Established != 2 {
		t.Errorf("changing the tunnel cost sessions: %+v", got)
	}
}

// waitRoutes waits until the node's learnt routes are exactly these.
func (n *node) waitRoutes(what string, want ...string) {
	n.t.Helper()
	eventually(n.t, what, func() (bool, string) {
		diff := cmp.Diff(want, n.routes())
		return diff == "", diff
	})
}

// Whatever else takes a learnt route away, a link that goes down or an operator,
// it comes back; and what is not the speaker's own stays as it is.
func TestKernelRoutesAreRepaired(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 2)
	a := nodes[0]
	eth0, err := a.h.LinkByName("eth0")
	must(t, err)
	own := block(1)
	stale, outside := netip.MustParsePrefix("10.65.200.0/26"), netip.MustParsePrefix("10.99.0.0/26")
	for _, r := range []*netlink.Route{
		{Dst: ipNet(own), Type: unix.RTN_BLACKHOLE, Protocol: unix.RTPROT_BIRD},
		{Dst: ipNet(stale), Gw: net.ParseIP("192.0.2.2"), LinkIndex: eth0.Attrs().Index, Protocol: unix.RTPROT_BIRD},
		{Dst: ipNet(outside), Gw: net.ParseIP("192.0.2.2"), LinkIndex: eth0.Attrs().Index, Protocol: unix.RTPROT_BIRD},
	} {
		must(t, a.h.RouteAdd(r))
	}
	for _, n := range nodes {
		n.start()
	}
	a.wait("mesh", synced(1, 1))
	others := []string{"blackhole " + own.String(), fmt.Sprintf("%s via 192.0.2.2 dev eth0", outside)}
	want := append(slices.Clone(others), fmt.Sprintf("%s via 192.0.2.2 dev eth0", block(2)))
	slices.Sort(want)
	a.waitRoutes("stale route swept, others spared", want...)

	must(t, a.h.RouteDel(&netlink.Route{Dst: ipNet(block(2)), Protocol: unix.RTPROT_BIRD}))
	a.waitRoutes("deleted route repaired", want...)

	must(t, a.h.LinkSetDown(eth0)) // takes all routes along, and says so only of the link
	must(t, a.h.LinkSetUp(eth0))
	want = slices.DeleteFunc(want, func(r string) bool { return strings.HasPrefix(r, outside.String()) })
	a.waitRoutes("routes after the link came back", want...)

	a.stop()
	a.waitRoutes("after shutdown", "blackhole "+own.String())
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
