package hosts

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// loopback sets a namespace's lo up: nobody else does before a machine has booted.
func loopback(t testing.TB, ns *netns.NS) {
	t.Helper()
	h := testnet.Handle(t, ns)
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// gateway gives a namespace a default route.
func gateway(t testing.TB, ns *netns.NS, via netip.Addr) {
	t.Helper()
	h := testnet.Handle(t, ns)
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	if err := h.RouteReplace(&netlink.Route{Dst: all, Gw: via.AsSlice()}); err != nil {
		t.Fatal(err)
	}
}
