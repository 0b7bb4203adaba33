package linux

import (
	"net/netip"
	"testing"

	"slipway/datapath"
	"slipway/topology"
)

// The ipip module makes a tunl0 in every namespace that cannot be deleted: idle
// it counts as absent, in use as ours.
func TestKernelTunnelDevice(t *testing.T) {
	address := netip.MustParsePrefix("10.244.1.0/32")
	cfg := datapath.NodeConfig{
		Node:  "n",
		Links: []datapath.Link{{Name: "tunl0", Kind: datapath.IPIP, MTU: 1480, Addresses: []netip.Prefix{address}}},
		IPIP:  &datapath.IPIPTunnel{Device: "tunl0", Implementation: topology.IPIPKernel},
	}
	state := func(up bool, kind datapath.LinkKind, addresses ...netip.Prefix) datapath.KernelState {
		l := datapath.LinkState{Link: datapath.Link{Name: "tunl0", Kind: kind, MTU: 1480, Addresses: addresses}, Type: string(kind), Up: up}
		return datapath.KernelState{Links: []datapath.LinkState{l}}
	}
	idle, used, tun := state(false, datapath.IPIP), state(true, datapath.IPIP, address), state(true, datapath.TUN, address)
	for _, c := range []struct {
		name string
		cfg  datapath.NodeConfig
		st   datapath.KernelState
		want []datapath.ChangeAction
	}{
		{"wanted, idle", cfg, idle, []datapath.ChangeAction{datapath.Add, datapath.Add}}, // link, address
		{"wanted, in use", cfg, used, nil},
		{"wanted, but a TUN", cfg, tun, []datapath.ChangeAction{datapath.Update, datapath.Add}},
		{"unwanted, idle", datapath.NodeConfig{Node: "n"}, idle, nil},
		{"unwanted, in use", datapath.NodeConfig{Node: "n"}, used, []datapath.ChangeAction{datapath.Remove}},
	} {
		d := Compare(c.cfg, c.st)
		if len(d) != len(c.want) {
			t.Errorf("%s: %v", c.name, d)
			continue
		}
		for i := range d {
			if d[i].Action != c.want[i] {
				t.Errorf("%s: %v", c.name, d)
			}
		}
	}
}
