package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/nl"
	"slipway/topology"
)

// errNoRoute reports a next hop that the kernel knows no way to.
var errNoRoute = errors.New("no route to next hop")

// fib keeps the kernel's main table equal to what was learnt: the unicast
// routes with protocol bird inside the accepted range are its own, and nothing
// else is.
type fib struct {
	h      *netlink.Handle
	accept netip.Prefix
	tunnel *datapath.SpeakerTunnel
	src    netip.Addr
	// learned is the next hop of the best path to each prefix.
	learned map[netip.Prefix]netip.Addr
	// keepStale spares routes of an earlier speaker that were not learnt yet.
	keepStale bool

	// What the kernel has said, as long as nothing there has changed but by
	// sync; see forget.
	have  map[netip.Prefix]netlink.Route // nil: not read yet
	hops  map[netip.Addr]hop
	names map[int]string
}

// forget makes the next pass ask the kernel everything again.
func (f *fib) forget() { f.have, f.hops, f.names = nil, nil, nil }

// target is how the kernel is to reach a prefix.
type target struct {
	via    netip.Addr
	index  int
	onlink bool
	src    netip.Addr
}

func (f *fib) accepts(p netip.Prefix) bool {
	return f.accept.IsValid() && p.Bits() >= f.accept.Bits() && f.accept.Contains(p.Addr())
}

// synced is the result of one pass of fib.sync.
type synced struct {
	routes     map[netip.Prefix]Route // learnt, and in the kernel now
	unresolved int
	err        error // why routes are unresolved or could not be changed
}

// sync adds, changes and removes what differs from the learnt routes in the
// kernel, which it reads unless it still knows them. What fails now is tried
// again by the next pass.
func (f *fib) sync() synced {
	out := synced{routes: map[netip.Prefix]Route{}}
	if f.have == nil {
		have, err := f.installed()
		if err != nil {
			out.err = err
			return out
		}
		f.have, f.hops, f.names = have, map[netip.Addr]hop{}, map[int]string{}
	}
	for _, p := range sortedPrefixes(f.learned) {
		if !f.accepts(p) {
			continue
		}
		nh := f.learned[p]
		old, exists := f.have[p]
		want, err := f.target(nh)
		if err == nil && (!exists || targetOf(old) != want) {
			err = f.install(p, want, exists)
		}
		if err != nil { // an old route through another next hop goes below
			out.unresolved++
			out.err = errors.Join(out.err, fmt.Errorf("route %s: %w", p, err))
			continue
		}
		out.routes[p] = Route{Prefix: p, NextHop: nh, Via: want.via, Dev: f.name(want.index), Onlink: want.onlink}
	}
	for p, r := range f.have {
		if _, right := out.routes[p]; right {
			continue
		}
		if _, learned := f.learned[p]; learned || !f.keepStale {
			out.err = errors.Join(out.err, f.remove(r))
			delete(f.have, p)
		}
	}
	if out.err != nil {
		f.forget()
	}
	return out
}

// clear removes every route that is ours.
func (f *fib) clear() error {
	have, err := f.installed()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range have {
		errs = append(errs, f.remove(r))
	}
	return errors.Join(errs...)
}

// installed lists the routes that are ours, whoever installed them.
func (f *fib) installed() (map[netip.Prefix]netlink.Route, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: netlink.RouteProtocol(datapath.ProtoBird), Type: unix.RTN_UNICAST}
	routes, err := nl.Dump(func() ([]netlink.Route, error) {
		return f.h.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return nil, fmt.Errorf("list learnt routes: %w", err)
	}
	out := map[netip.Prefix]netlink.Route{}
	for _, r := range routes {
		if p := prefixOf(r.Dst); f.accepts(p) {
			out[p] = r
		}
	}
	return out, nil
}

func (f *fib) install(p netip.Prefix, t target, replace bool) error {
	r := &netlink.Route{
		Dst: ipNet(p), Gw: t.via.AsSlice(), LinkIndex: t.index,
		Table: unix.RT_TABLE_MAIN, Protocol: netlink.RouteProtocol(datapath.ProtoBird),
	}
	if t.onlink {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	if t.src.IsValid() {
		r.Src = t.src.AsSlice()
	}
	// A plain add never takes the place of somebody else's route.
	set := f.h.RouteAdd
	if replace {
		set = f.h.RouteReplace
	}
	if err := set(r); err != nil {
		return fmt.Errorf("add via %s: %w", t.via, err)
	}
	f.have[p] = *r
	return nil
}

func (f *fib) remove(r netlink.Route) error {
	if err := f.h.RouteDel(&r); err != nil && !nl.Missing(err) {
		return fmt.Errorf("remove route %s: %w", r.Dst, err)
	}
	return nil
}

// hop is the way to a next hop, or why there is none.
type hop struct {
	target
	err error
}

func (f *fib) target(nh netip.Addr) (target, error) {
	h, known := f.hops[nh]
	if !known {
		h.target, h.err = f.resolve(nh)
		h.src = f.src
		f.hops[nh] = h
	}
	return h.target, h.err
}

// resolve is the recursive lookup of RFC 4271 §5.1.3, done by the kernel; or
// the tunnel, where the policy wants it.
func (f *fib) resolve(nh netip.Addr) (target, error) {
	if t := f.tunnel; t != nil && (t.Policy != topology.IPIPCrossSubnet || !t.LocalSubnet.Contains(nh)) {
		l, err := f.h.LinkByName(t.Device)
		if err != nil {
			return target{}, fmt.Errorf("tunnel %s: %w", t.Device, err)
		}
		return target{via: nh, index: l.Attrs().Index, onlink: true}, nil
	}
	routes, err := f.h.RouteGet(nh.AsSlice())
	if err != nil {
		return target{}, fmt.Errorf("%w %s: %w", errNoRoute, nh, err)
	}
	for _, route := range routes {
		if route.Type != unix.RTN_UNICAST {
			continue
		}
		if via, ok := netip.AddrFromSlice(route.Gw); ok {
			return target{via: via.Unmap(), index: route.LinkIndex}, nil
		}
		return target{via: nh, index: route.LinkIndex}, nil
	}
	return target{}, fmt.Errorf("%w %s", errNoRoute, nh)
}

func (f *fib) name(index int) string {
	if n, ok := f.names[index]; ok {
		return n
	}
	n := fmt.Sprintf("if%d", index)
	if l, err := f.h.LinkByIndex(index); err == nil {
		n = l.Attrs().Name
	}
	f.names[index] = n
	return n
}

func targetOf(r netlink.Route) target {
	t := target{index: r.LinkIndex, onlink: r.Flags&int(netlink.FLAG_ONLINK) != 0}
	if a, ok := netip.AddrFromSlice(r.Gw); ok {
		t.via = a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(r.Src); ok {
		t.src = a.Unmap()
	}
	return t
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func sortedPrefixes[V any](m map[netip.Prefix]V) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return out
}
