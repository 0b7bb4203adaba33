package rig

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// Fabric is a segment: a bridge in a namespace of its own.
type Fabric struct {
	NS    *netns.NS
	t     testing.TB // see [Fabric.Use]
	ports int
}

// Bridge is the name of the fabric's device, which sees what all do.
const Bridge = "br0"

// NewFabric makes a segment in a namespace.
func NewFabric(t testing.TB, ns *netns.NS) *Fabric {
	t.Helper()
	f := &Fabric{t: t, NS: ns}
	h := testnet.Handle(t, f.NS)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: Bridge}}
	if err := h.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
	return f
}

// Plug wires a namespace to the segment by its eth0, and returns the name of the
// fabric's end.
func (f *Fabric) Plug(ns *netns.NS, address netip.Prefix) string {
	f.t.Helper()
	f.ports++
	port := fmt.Sprintf("port%d", f.ports)
	testnet.Wire(f.t, ns, "eth0", address.String(), f.NS, port, "")
	h := testnet.Handle(f.t, f.NS)
	l, err := h.LinkByName(port)
	if err == nil {
		var br netlink.Link
		if br, err = h.LinkByName(Bridge); err == nil {
			err = h.LinkSetMaster(l, br)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return port
}

// Use makes another test, a subtest of the former, the one that fails.
func (f *Fabric) Use(t testing.TB) { f.t = t }

// Set plugs the fabric's end of a wire in, or out.
func (f *Fabric) Set(port string, up bool) {
	f.t.Helper()
	h := testnet.Handle(f.t, f.NS)
	l, err := h.LinkByName(port)
	switch {
	case err != nil:
	case up:
		err = h.LinkSetUp(l)
	default:
		err = h.LinkSetDown(l)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}
