package curve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab/bench/footprint"
	"slipway/lab/bench/load"
)

// The addresses of the bed, in the pods' range, so that the rules take the
// client for a pod, but in no node's share of it.
var (
	clientLeg     = leg{"client", "10.244.250.1/24", "10.244.250.2/24"}
	serverLeg     = leg{"server", "10.244.251.1/24", "10.244.251.2/24"}
	extraEndpoint = netip.MustParseAddr("10.244.251.3")
)

// leg is a veth pair: the node's end is called as what is at the other, where it
// is called as in a pod.
type leg struct{ name, node, end string }

// proxyBed is a node that forwards between a client and the endpoints of
// services, which are all in one namespace.
type proxyBed struct {
	node           *netns.NS
	client, server load.Place
	nature         load.Nature
	dir, lock      string
}

// newProxyBed makes the namespaces and wires them.
func newProxyBed(ctx context.Context, endpoints []netip.Addr) (b *proxyBed, err error) {
	b = &proxyBed{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a node with a client and a server: %w", err), b.close(ctx))
		}
	}()
	if b.dir, err = os.MkdirTemp("", "slipway-bench"); err != nil {
		return b, err
	}
	b.lock = filepath.Join(b.dir, "xtables.lock")
	for _, ns := range []**netns.NS{&b.node, &b.client.NS, &b.server.NS} {
		if *ns, err = netns.Anonymous(); err != nil {
			return b, err
		}
	}
	// The server answers at whichever endpoint the rules choose.
	b.client.Label, b.server.Label, b.server.Addr = "client", "server", netip.IPv4Unspecified()
	b.client.Addr = netip.MustParsePrefix(clientLeg.end).Addr()
	if err := errors.Join(b.wire(ctx, clientLeg, b.client.NS), b.wire(ctx, serverLeg, b.server.NS)); err != nil {
		return b, err
	}
	if err := b.endpoints(endpoints); err != nil {
		return b, err
	}
	err = b.node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	if err != nil {
		return b, err
	}
	b.nature, err = nature(b.client)
	return b, err
}

// wire makes a leg and sends everything of its end by way of the node.
func (b *proxyBed) wire(ctx context.Context, l leg, end *netns.NS) error {
	node, err := nl.At(b.node)
	if err != nil {
		return err
	}
	defer node.Close()
	far, err := nl.At(end)
	if err != nil {
		return err
	}
	defer far.Close()
	if err := node.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: l.name}, PeerName: podDevice, PeerNamespace: netlink.NsFd(end.Fd())}); err != nil {
		return fmt.Errorf("add veth to %s: %w", l.name, err)
	}
	gateway := netip.MustParsePrefix(l.node)
	if err := errors.Join(address(node, l.name, gateway), address(far, podDevice, netip.MustParsePrefix(l.end))); err != nil {
		return err
	}
	// What is sent before a device has its queue vanishes, and a SYN's repeat takes a second.
	if err := errors.Join(node.AwaitCarrier(ctx, l.name), far.AwaitCarrier(ctx, podDevice)); err != nil {
		return err
	}
	return route(far, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway.Addr())
}

// endpoints gives the server the endpoints' addresses, and the node the way there.
func (b *proxyBed) endpoints(all []netip.Addr) error {
	node, err := nl.At(b.node)
	if err != nil {
		return err
	}
	defer node.Close()
	server, err := nl.At(b.server.NS)
	if err != nil {
		return err
	}
	defer server.Close()
	for _, a := range all {
		one := netip.PrefixFrom(a, a.BitLen())
		if err := errors.Join(address(server, podDevice, one), route(node, one, netip.MustParsePrefix(serverLeg.end).Addr())); err != nil {
			return err
		}
	}
	return nil
}

// address gives a device an address and sets it up.
func address(h *nl.Handle, dev string, a netip.Prefix) error {
	l, err := h.LinkByName(dev)
	if err == nil {
		err = h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(a)})
	}
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", dev, a, err)
	}
	return nil
}

func route(h *nl.Handle, to netip.Prefix, via netip.Addr) error {
	if err := h.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("add route to %s: %w", to, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// close lets the namespaces go and waits until the kernel has freed their rules.
func (b *proxyBed) close(ctx context.Context) error {
	var errs []error
	for _, ns := range []*netns.NS{b.node, b.client.NS, b.server.NS} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	errs = append(errs, footprint.Drain(context.WithoutCancel(ctx)))
	return errors.Join(errs...)
}
