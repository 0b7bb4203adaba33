package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"slipway/internal/nl"
)

// errNoDevice reports a node whose underlay device cannot be told.
var errNoDevice = errors.New("no underlay device")

// findDevice finds the underlay device and the node's address on it: the device
// that is named, with the given address if it has it; else the one that has the
// address; else, if that is unknown, the one of the default route.
func findDevice(h *nl.Handle, name string, address netip.Addr) (device, error) {
	links, err := nl.Dump(h.LinkList)
	if err != nil {
		return device{}, fmt.Errorf("list links: %w", err)
	}
	addrs, err := nl.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return device{}, fmt.Errorf("list addresses: %w", err)
	}
	index, err := indexOf(h, name, address, links)
	if err != nil {
		return device{}, err
	}
	var found []netip.Prefix
	var on []int
	for _, a := range addrs {
		p, ok := netip.AddrFromSlice(a.IP.To4())
		ones, _ := a.Mask.Size()
		if ok && (index == 0 || a.LinkIndex == index) {
			found, on = append(found, netip.PrefixFrom(p, ones)), append(on, a.LinkIndex)
		}
	}
	i := slices.IndexFunc(found, func(p netip.Prefix) bool { return p.Addr() == address })
	switch {
	case i < 0 && index == 0:
		return device{}, fmt.Errorf("interface %s: %w has the node's address %s", name, errNoDevice, address)
	case len(found) == 0:
		return device{}, fmt.Errorf("interface %s: %w: it has no IPv4 address", name, errNoDevice)
	}
	i = max(i, 0)
	for _, l := range links {
		if at := l.Attrs(); at.Index == on[i] {
			return device{name: at.Name, prefix: found[i], mac: at.HardwareAddr.String(), mtu: at.MTU}, nil
		}
	}
	return device{}, fmt.Errorf("interface %s: %w: it went away", name, errNoDevice)
}

// indexOf is the device's index, 0 if its address tells which it is.
func indexOf(h *nl.Handle, name string, address netip.Addr, links []netlink.Link) (int, error) {
	if name == autoInterface {
		if address.IsValid() {
			return 0, nil
		}
		return defaultRoute(h)
	}
	for _, l := range links {
		if l.Attrs().Name == name {
			return l.Attrs().Index, nil
		}
	}
	return 0, fmt.Errorf("interface %s: %w of that name", name, errNoDevice)
}

// defaultRoute is the index of the device that the default route leads out of.
func defaultRoute(h *nl.Handle) (int, error) {
	routes, err := nl.Dump(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if (r.Dst == nil || r.Dst.IP.IsUnspecified()) && r.LinkIndex != 0 {
			return r.LinkIndex, nil
		}
	}
	return 0, fmt.Errorf("interface auto: %w: the registry knows no address of the node, and there is no default route", errNoDevice)
}
