package peers

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"slipway/internal/nl"
	"slipway/internal/testnet"
	"slipway/lab/bench/load"
	"slipway/topology"
)

// handSnapshot is what a lab of two nodes says of itself.
func handSnapshot(mtu int) *topology.Snapshot {
	s := &topology.Snapshot{}
	s.Network.MTU = topology.MTU(mtu)
	for i, name := range []string{"node01", "node02"} {
		s.Nodes = append(s.Nodes, topology.NodeState{
			Node: topology.Node{Name: name}, PodCIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24),
			Interface: topology.Interface{Name: "eth0", Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 233, byte(10 + i)}), 24)},
		})
		s.Pods = append(s.Pods, topology.Pod{
			Namespace: "default", Name: []string{"client", "server"}[i], Node: name, Address: netip.AddrFrom4([4]byte{10, 244, byte(i), 2}),
		})
	}
	return s
}

// TestPathsByHand lets packets pass both ways on each path, over the device that
// the mode is about, and nowhere in larger packets than the mode's.
func TestPathsByHand(t *testing.T) {
	testnet.Need(t, testnet.Root)
	if missing := byHandMissing(); len(missing) > 0 {
		t.Skip(missing)
	}
	for _, c := range []struct {
		mode topology.ModeName
		mtu  int
		over string // on the first node
	}{
		{topology.FlannelVXLAN, 1450, "flannel.1"},
		{topology.FlannelHostGW, 1500, "cni0"},
		{topology.CalicoBGP, 1500, "cali0"},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			net, err := newHandNet(handSnapshot(c.mtu))
			if err != nil {
				t.Fatal(err)
			}
			b := &handBed{Bed: Bed{variant: string(c.mode)}, net: net}
			defer func() {
				if err := b.Close(ctx); err != nil {
					t.Error(err)
				}
			}()
			if err := net.setUp(ctx, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := b.look(ctx); err != nil {
				t.Fatal(err)
			}
			h, err := nl.At(net.spaces["node01"])
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			link, err := h.LinkByName(c.over)
			if err != nil {
				t.Fatal(err)
			}
			if s := link.Attrs().Statistics; s.RxPackets == 0 || s.TxPackets == 0 {
				t.Errorf("%s had %d packets in, %d out", c.over, s.RxPackets, s.TxPackets)
			}
			f, err := load.Native{}.Run(ctx, load.Job{Workload: load.TCPStream, Client: b.ends.Client, Server: b.ends.Server, Duration: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			// With time stamps a segment is 52 bytes shorter than its packet.
			if f[load.MSS] != float64(c.mtu-52) {
				t.Errorf("segments of %v bytes at an MTU of %d", f[load.MSS], c.mtu)
			}
		})
	}
}
