package bpf_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/topology"
)

// Each end is a different program that read the same RFC: they have to agree.
func TestCarriesBetweenImplementations(t *testing.T) {
	both := []topology.IPIPImplementation{topology.IPIPeBPF, topology.IPIPUserspace}
	for _, a := range both {
		for _, b := range both {
			t.Run(fmt.Sprintf("%s to %s", a, b), func(t *testing.T) {
				r := newRig(t)
				for i, impl := range []topology.IPIPImplementation{a, b} {
					realWire(t, r.nodes[i].ns, "eth0")
					r.nodes[i].carry(t, impl)
				}
				from, to := &r.nodes[0], &r.nodes[1]
				if out, err := from.ping(t, to.podAddr, 5, 56, "do"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				transfer(t, from, to, 4<<20)
				transfer(t, to, from, 4<<20)
			})
		}
	}
}

func TestLargePacketsStayWhole(t *testing.T) {
	r := newRig(t)
	from, to := &r.nodes[0], &r.nodes[1]
	for i := range r.nodes {
		r.nodes[i].carry(t, topology.IPIPeBPF)
	}
	const size = 64 << 20
	transfer(t, from, to, size)

	sent, err := bpf.Stats(from.ns, from.tunnel)
	check(t, err)
	got, err := bpf.Stats(to.ns, to.tunnel)
	check(t, err)
	if sent.EncapBytes < size || got.DecapBytes < size {
		t.Errorf("counted %d bytes in and %d out of the tunnel for a transfer of %d", sent.EncapBytes, got.DecapBytes, size)
	}
	// A packet that had been cut to the MTU on the way would hold at most that.
	if mean := sent.EncapBytes / sent.EncapPackets; mean < 4*tunnelMTU {
		t.Errorf("encapsulated %d bytes a packet: segmented before", mean)
	}
	if mean := got.DecapBytes / got.DecapPackets; mean < 4*tunnelMTU {
		t.Errorf("decapsulated %d bytes a packet: segmented on the way", mean)
	}
	for _, c := range []bpf.Counters{sent, got} {
		if c.Failed+c.BadLength+c.NoNextHop != 0 {
			t.Errorf("packets were lost: %+v", c)
		}
	}
}

func TestMTU(t *testing.T) {
	for _, impl := range []topology.IPIPImplementation{topology.IPIPeBPF, topology.IPIPUserspace} {
		t.Run(string(impl), func(t *testing.T) {
			testnet.Need(t, testnet.Ping)
			r := newRig(t)
			for i := range r.nodes {
				r.nodes[i].carry(t, impl)
			}
			from, to := &r.nodes[0], &r.nodes[1]
			const headers = 20 + 8 // IPv4 and ICMP
			if out, err := from.ping(t, to.podAddr, 1, tunnelMTU-headers, "do"); err != nil {
				t.Errorf("a packet of the tunnel's MTU did not pass: %v\n%s", err, out)
			}
			out, err := from.ping(t, to.podAddr, 1, tunnelMTU-headers+1, "do")
			if want := fmt.Sprintf("mtu = %d", tunnelMTU); err == nil || !strings.Contains(out, want) {
				t.Errorf("one byte more: %v, said %q, want %q", err, out, want)
			}
			if out, err := from.ping(t, to.podAddr, 1, 4000, "dont"); err != nil {
				t.Errorf("a packet that may be fragmented did not pass: %v\n%s", err, out)
			}
		})
	}
}

// A packet that comes out of one tunnel and is routed into another keeps
// flowing, large ones too: node 2's pod is reached from node 1 through node 3.
func TestForwardsFromTunnelToTunnel(t *testing.T) {
	r := newRig(t)
	for i := range r.nodes {
		r.nodes[i].carry(t, topology.IPIPeBPF)
	}
	// Node 2 sends what is for 10.42.9.2 back into the tunnel; there node 1's
	// pod has that address too.
	back := &r.nodes[0]
	h := testnet.Handle(t, back.pod)
	addr, err := netlink.ParseAddr("10.42.9.2/32")
	check(t, err)
	check(t, h.AddrAdd(mustLink(t, h, "eth0"), addr))
	far := r.nodes[1]
	addRoute(t, far.ns, "10.42.9.0/26", back.tunnel.Local.String(), "tunl0")
	addRoute(t, back.ns, "10.42.9.2/32", "", "cali0")

	// A third pod behind node 1 talks to it by way of node 2.
	client := testnet.NewNS(t)
	testnet.Wire(t, back.ns, "cali1", "169.254.1.1/32", client, "eth0", "10.42.1.3/32")
	addRoute(t, back.ns, "10.42.1.3/32", "", "cali1")
	addRoute(t, client, "0.0.0.0/0", "169.254.1.1", "eth0")
	detour(t, back.ns, far.tunnel.Local.String())

	from := &node{ns: back.ns, pod: client}
	to := &node{ns: back.ns, pod: back.pod, podAddr: mustAddr(t, "10.42.9.2")}
	transfer(t, from, to, 16<<20)
	c, err := bpf.Stats(far.ns, far.tunnel)
	check(t, err)
	if c.DecapBytes < 16<<20 || c.EncapBytes < 16<<20 {
		t.Errorf("the transfer did not pass node 2: %+v", c)
	}
}

// detour sends what comes from cali1 for 10.42.9.0/26 into the tunnel to gw.
func detour(t *testing.T, ns *netns.NS, gw string) {
	t.Helper()
	h := testnet.Handle(t, ns)
	const table = 99
	check(t, h.RouteReplace(&netlink.Route{
		Dst: mustCIDR(t, "10.42.9.0/26"), Gw: net.ParseIP(gw), Table: table, Flags: int(netlink.FLAG_ONLINK),
		LinkIndex: mustLink(t, h, "tunl0").Attrs().Index,
	}))
	// One rule for the packet on its way to tunl0, one for the next hop's look-up.
	in, out := netlink.NewRule(), netlink.NewRule()
	in.IifName, in.Table, in.Priority = "cali1", table, 100
	out.OifName, out.Table, out.Priority = "tunl0", table, 101
	check(t, h.RuleAdd(in))
	check(t, h.RuleAdd(out))
}

func TestAttachIsIdempotentAndDetachLeavesNothing(t *testing.T) {
	r := newRig(t)
	n := &r.nodes[0]
	if attached, err := bpf.IPIPAttached(n.ns, n.tunnel); err != nil || attached {
		t.Fatalf("before: attached %v, %v", attached, err)
	}
	if _, err := bpf.Stats(n.ns, n.tunnel); !errors.Is(err, bpf.ErrNotAttached) {
		t.Errorf("counters before attaching: %v, want ErrNotAttached", err)
	}
	check(t, bpf.AttachIPIP(n.ns, n.tunnel))
	open := descriptors(t)
	for range 2 {
		check(t, bpf.AttachIPIP(n.ns, n.tunnel))
		if attached, err := bpf.IPIPAttached(n.ns, n.tunnel); err != nil || !attached {
			t.Fatalf("after: attached %v, %v", attached, err)
		}
	}
	for _, dev := range []string{"tunl0", "eth0"} {
		if got := filterNames(t, n.ns, dev); len(got) != 1 {
			t.Errorf("%s has filters %q, want one", dev, got)
		}
	}
	moved := n.tunnel
	moved.Local = mustAddr(t, "172.30.1.7")
	if attached, err := bpf.IPIPAttached(n.ns, moved); err != nil || attached {
		t.Errorf("for another address: attached %v, %v", attached, err)
	}
	for range 2 {
		check(t, bpf.DetachIPIP(n.ns, n.tunnel))
	}
	if got := descriptors(t); got != open {
		t.Errorf("BPF descriptors: %d open before, %d after", open, got)
	}
	for _, dev := range []string{"tunl0", "eth0"} {
		if got := qdiscs(t, n.ns, dev); strings.Contains(got, "clsact") {
			t.Errorf("%s still has %s", dev, got)
		}
	}
}

func TestDetachLeavesOtherFiltersAlone(t *testing.T) {
	r := newRig(t)
	n := &r.nodes[0]
	check(t, bpf.AttachIPIP(n.ns, n.tunnel))
	check(t, bpf.AttachLoss(n.ns, "eth0", 10))
	check(t, bpf.DetachIPIP(n.ns, n.tunnel))
	got := filterNames(t, n.ns, "eth0")
	if len(got) != 1 || got[0] != "slipway-loss 10%" {
		t.Errorf("left on eth0: %q, want the loss program alone", got)
	}
}

func TestDetachWithoutDevice(t *testing.T) {
	r := newRig(t)
	n := &r.nodes[0]
	check(t, bpf.AttachIPIP(n.ns, n.tunnel))
	h := testnet.Handle(t, n.ns)
	check(t, h.LinkDel(mustLink(t, h, "tunl0")))
	check(t, bpf.DetachIPIP(n.ns, n.tunnel))
	if got := qdiscs(t, n.ns, "eth0"); strings.Contains(got, "clsact") {
		t.Errorf("eth0 still has %s", got)
	}
}

// A switch floods a frame for a MAC that it does not know; whoever gets it must
// leave it alone, although the packet inside is addressed to him.
func TestLeavesFramesForAnotherMAC(t *testing.T) {
	r := newRig(t)
	for i := range r.nodes {
		r.nodes[i].carry(t, topology.IPIPeBPF)
	}
	a, b := &r.nodes[0], &r.nodes[1]
	if out, err := a.ping(t, b.podAddr, 1, 56, "want"); err != nil {
		t.Fatalf("no ping while all is well: %v\n%s", err, out)
	}
	h := testnet.Handle(t, r.router)
	check(t, h.NeighSet(&netlink.Neigh{
		LinkIndex: mustLink(t, h, "r2").Attrs().Index, IP: b.tunnel.Local.AsSlice(), State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{0x02, 0xde, 0xad, 0xbe, 0xef, 0x01},
	}))
	if out, err := a.ping(t, b.podAddr, 2, 56, "want"); err == nil {
		t.Errorf("the tunnel took frames that were for another MAC:\n%s", out)
	}
}
