package ipiptun

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/internal/testnet"
)

// A tunnel whose device is taken away says so instead of waiting for ever.
func TestRunEndsWithItsDevice(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	ns, other := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, ns, "eth0", "192.0.2.1/24", other, "eth0", "192.0.2.2/24")
	h := testnet.Handle(t, ns)
	if err := ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tunl0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI})
	}); err != nil {
		t.Fatal(err)
	}
	cfg := datapath.IPIPTunnel{Device: "tunl0", Underlay: "eth0", Local: netip.MustParseAddr("192.0.2.1")}
	tun, err := Open(ns, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- tun.Run(t.Context()) }()
	dev, err := h.LinkByName("tunl0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("Run goes on without its device")
		_ = tun.Close()
	}
}

func TestOpenWithoutDevice(t *testing.T) {
	testnet.Need(t, testnet.Root)
	cfg := datapath.IPIPTunnel{Device: "tunl0", Underlay: "eth0", Local: netip.MustParseAddr("192.0.2.1")}
	if tun, err := Open(testnet.NewNS(t), cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("opened a tunnel on a device that is not there")
		_ = tun.Close()
	}
}
