package ipiptun

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/testnet"
)

// When BGP moves a block to another node, packets follow.
func TestNextHopFollowsRoutes(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	ns := testnet.NewNS(t)
	h := testnet.Handle(t, ns)
	if err := ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tunl0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI})
	}); err != nil {
		t.Fatal(err)
	}
	tun, err := h.LinkByName("tunl0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(tun); err != nil {
		t.Fatal(err)
	}
	hops, err := openNextHops(ns, tun.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- hops.follow() }()
	defer func() {
		if err := hops.close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	pod := netip.MustParseAddr("10.42.2.2")
	if gw, ok := hops.to(pod); ok {
		t.Errorf("without a route: next hop %s", gw)
	}
	_, block, _ := net.ParseCIDR("10.42.2.0/26")
	for _, want := range []string{"192.0.2.2", "192.0.2.3"} {
		r := &netlink.Route{Dst: block, Gw: net.ParseIP(want), LinkIndex: tun.Attrs().Index, Flags: int(netlink.FLAG_ONLINK)}
		if err := h.RouteReplace(r); err != nil {
			t.Fatal(err)
		}
		testnet.Eventually(t, 5*time.Second, "the route's next hop "+want, func() (bool, string) {
			gw, _ := hops.to(pod)
			return gw.String() == want, gw.String()
		})
	}
	// A connected route has no node behind it.
	if err := h.RouteReplace(&netlink.Route{Dst: block, LinkIndex: tun.Attrs().Index, Scope: netlink.SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, "no next hop on a connected route", func() (bool, string) {
		gw, ok := hops.to(pod)
		return !ok, gw.String()
	})
}
