package shape_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/shape"
	"slipway/topology"
)

// A relay whose TAP is taken away says so instead of waiting for ever.
func TestRelayEndsWithItsTap(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	fabric := shape.Port{NS: testnet.NewNS(t), Name: "p1"}
	node := shape.Port{NS: testnet.NewNS(t), Name: "eth0"}
	check(t, shape.CreateTap(fabric))
	if _, err := shape.OpenRelay(fabric, node, 0); err == nil {
		t.Fatal("opened a relay to a TAP that is not there")
	}
	check(t, shape.CreateTap(node))
	relay, err := shape.OpenRelay(fabric, node, time.Millisecond)
	check(t, err)
	done := make(chan error, 1)
	go func() { done <- relay.Run(t.Context()) }()
	h := testnet.Handle(t, node.NS)
	check(t, h.LinkDel(mustLink(t, h, "eth0")))
	select {
	case err := <-done:
		if err == nil {
			t.Error("Run ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("Run goes on without its TAP")
		check(t, relay.Close())
	}
}

// The TAPs outlive a relay, as they outlive a daemon, and serve the next one.
func TestRelayAttachesAgain(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	seg := segment()
	seg.Delay = topology.Duration(time.Millisecond)
	r := newRig(t, seg, shape.Support{TAP: true})
	roundTrip(t, r)
	check(t, r.relays[0].Close())
	r.run(t, 0, time.Millisecond)
	roundTrip(t, r)
}

// Encapsulated packets that are too large or have unfinished checksums are
// finished before a TAP gets them.
func TestTunnelsCrossRelay(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	const size = 8 << 20
	tunnels := map[string]struct {
		needs testnet.Capability
		add   func(t *testing.T, r *rig, i int)
	}{
		"vxlan": {testnet.VXLAN, addVXLAN},
		"ipip":  {testnet.BPF, addIPIP},
	}
	for name, tunnel := range tunnels {
		t.Run(name, func(t *testing.T) {
			testnet.Need(t, tunnel.needs)
			seg := segment()
			seg.Delay = topology.Duration(100 * time.Microsecond)
			r := newRig(t, seg, shape.Support{TAP: true})
			for i := range r.nodes {
				tunnel.add(t, r, i)
			}
			transfer(t, r.nodes[0], r.nodes[1], inner(1), size)
		})
	}
}

// inner is a node's address inside the tunnel.
func inner(i int) string { return netip.AddrFrom4([4]byte{10, 1, byte(i), 1}).String() }

func addVXLAN(t *testing.T, r *rig, i int) {
	t.Helper()
	h := testnet.Handle(t, r.nodes[i])
	check(t, h.LinkAdd(&netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: "vx0", MTU: 1450},
		VxlanId:   1, Port: 8472, SrcAddr: net.ParseIP(address(i)), Group: net.ParseIP(address(1 - i)),
		VtepDevIndex: mustLink(t, h, "eth0").Attrs().Index,
	}))
	addr, err := netlink.ParseAddr(inner(i) + "/16")
	check(t, err)
	check(t, h.AddrAdd(mustLink(t, h, "vx0"), addr))
	check(t, h.LinkSetUp(mustLink(t, h, "vx0")))
}

func addIPIP(t *testing.T, r *rig, i int) {
	t.Helper()
	ns := r.nodes[i]
	check(t, ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{
			LinkAttrs: netlink.LinkAttrs{Name: "tunl0"},
			Mode:      netlink.TUNTAP_MODE_TUN,
			Flags:     netlink.TUNTAP_NO_PI,
		})
	}))
	h := testnet.Handle(t, ns)
	tunl := mustLink(t, h, "tunl0")
	addr, err := netlink.ParseAddr(inner(i) + "/32")
	check(t, err)
	check(t, h.LinkSetMTU(tunl, 1480))
	check(t, h.AddrAdd(tunl, addr))
	check(t, h.LinkSetUp(tunl))
	check(t, forward(ns))
	check(t, h.RouteReplace(&netlink.Route{
		Dst:       netlink.NewIPNet(net.ParseIP(inner(1 - i))),
		Gw:        net.ParseIP(address(1 - i)),
		LinkIndex: tunl.Attrs().Index,
		Flags:     int(netlink.FLAG_ONLINK),
	}))
	check(t, bpf.AttachIPIP(ns, datapath.IPIPTunnel{Device: "tunl0", Underlay: "eth0", Local: netip.MustParseAddr(address(i))}))
}

func forward(ns *netns.NS) error {
	return ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
}
