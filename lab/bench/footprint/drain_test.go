package footprint

import (
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
)

func TestDrainOutlastsWhatWasLetGo(t *testing.T) {
	testnet.Need(t, testnet.Root)
	stays := testnet.NewNS(t)
	h := testnet.Handle(t, stays)
	for range 5 {
		goes, err := netns.Anonymous()
		if err != nil {
			t.Fatal(err)
		}
		err = h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there", PeerNamespace: netlink.NsFd(goes.Fd())})
		if err == nil {
			err = goes.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.LinkByName("here"); !nl.Missing(err) {
			t.Errorf("the other end of a device in a namespace that was let go of before is still there: %v", err)
		}
	}
}
