package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/nl"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/topology"
)

// controlLab is the lab whose machines the controls run in: it has a journal and
// a mark as any lab has, so that `slipway down` removes it whatever happened.
const controlLab = "control"

// The veth pair of the control of that name lies between two machines without
// netfilter rules. Its addresses are of the range for benchmarks (RFC 2544,
// appendix C.2.2).
const (
	vethDevice = "bench0"
	vethClient = "198.18.0.1/30"
	vethServer = "198.18.0.2/30"
	router     = "router"
)

// controlBed is a path of the control lab, and nothing else.
type controlBed struct {
	path string
	ends matrix.Ends
	lab  *labBed // closed by whoever opened it
}

func newControlBed(path, device string, c, s load.Place, l *labBed) *controlBed {
	sender := load.Device{NS: c.NS, Name: device, Label: c.Label + "/" + device}
	return &controlBed{path, matrix.Ends{Client: c, Server: s, Sender: sender}, l}
}

// controlBeds makes the controls in a lab.
func controlBeds(ctx context.Context, l *labBed) ([]matrix.Bed, error) {
	client, err := netip.ParsePrefix(vethClient)
	if err != nil {
		return nil, err
	}
	server, err := netip.ParsePrefix(vethServer)
	if err != nil {
		return nil, err
	}
	if err := l.wire(ctx, lab.ExternalName, client, router, server); err != nil {
		return nil, fmt.Errorf("make the control %s: %w", matrix.VethPair, err)
	}
	local := l.place(lab.ExternalName, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	nodes := l.snapshot.Nodes
	var out []matrix.Bed
	add := func(path, device string, c, s load.Place) {
		out = append(out, newControlBed(path, device, c, s, l))
	}
	add(matrix.Loopback, "lo", local, local)
	add(matrix.VethPair, vethDevice, l.place(lab.ExternalName, client.Addr()), l.place(router, server.Addr()))
	add(matrix.NodeNode, nodes[0].Interface.Name, l.place(nodes[0].Name, nodes[0].Address), l.place(nodes[1].Name, nodes[1].Address))
	return out, nil
}

// wire lays a veth pair between two machines. It goes with their namespaces.
func (b *labBed) wire(ctx context.Context, from string, fromAddr netip.Prefix, to string, toAddr netip.Prefix) error {
	h, err := nl.At(b.open[from])
	if err != nil {
		return err
	}
	defer h.Close()
	peer, err := nl.At(b.open[to])
	if err != nil {
		return err
	}
	defer peer.Close()
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: vethDevice}, PeerName: vethDevice, PeerNamespace: netlink.NsFd(b.open[to].Fd()),
	}
	if err := h.LinkAdd(pair); err != nil {
		return fmt.Errorf("add a veth pair between %s and %s: %w", from, to, err)
	}
	for _, end := range []struct {
		h    *nl.Handle
		addr netip.Prefix
	}{{h, fromAddr}, {peer, toAddr}} {
		l, err := end.h.LinkByName(vethDevice)
		if err != nil {
			return err
		}
		mask := net.CIDRMask(end.addr.Bits(), end.addr.Addr().BitLen())
		if err := end.h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: end.addr.Addr().AsSlice(), Mask: mask}}); err != nil {
			return fmt.Errorf("address %s: %w", end.addr, err)
		}
		if err := end.h.LinkSetUp(l); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, carrierPatience)
	defer cancel()
	return h.AwaitCarrier(ctx, vethDevice)
}

// Name is that of the path.
func (b *controlBed) Name() string { return b.path }

// Ends are those of its own path.
func (b *controlBed) Ends(path, target string) (matrix.Ends, bool) {
	return b.ends, path == b.path && target == matrix.Direct
}

// Watch looks at the ends alone.
func (b *controlBed) Watch() load.Watch {
	w := load.Watch{Spaces: []load.Place{b.ends.Client}, Devices: []load.Device{b.ends.Sender}, Reasons: b.lab.reasons}
	if b.ends.Server.NS != b.ends.Client.NS {
		w.Spaces = append(w.Spaces, b.ends.Server)
	}
	return w
}

// Close leaves the lab, which all controls share, to whoever opened it.
func (b *controlBed) Close(context.Context) error { return nil }

// controlVariant is what the control lab runs: the mode that adds least to nodes.
var controlVariant = Variant{Mode: topology.FlannelHostGW}

// carrierPatience bounds the wait for the kernel to see that both ends are up.
const carrierPatience = 5 * time.Second
