package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/internal/nl"
	"slipway/lab/daemon"
	"slipway/lab/shape"
	"slipway/topology"
)

// underlay is the fabric and what is plugged into it, as planned.
type underlay struct {
	segments []topology.Segment
	machines []machine
	wires    map[string][]wire // by machine
	support  shape.Support
	// podRange holds the routes that belong to the datapath mode, not to the underlay.
	podRange netip.Prefix
}

func planUnderlay(s *topology.Snapshot, sup shape.Support) (*underlay, error) {
	machines, err := machinesOf(s)
	if err != nil {
		return nil, err
	}
	u := &underlay{segments: s.Segments, machines: machines, wires: map[string][]wire{}, support: sup, podRange: s.Network.PodCIDR}
	for _, m := range machines {
		if u.wires[m.name], err = wiresOf(s, m, sup); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// relays lists the delayed wires for the daemon.
func (u *underlay) relays(lab string) []daemon.Relay {
	var out []daemon.Relay
	for _, m := range u.machines {
		for _, w := range u.wires[m.name] {
			if w.relay {
				out = append(out, daemon.Relay{
					Name: w.port, NodeNS: NSOfMachine(lab, m.name), Node: w.leg.Name,
					PortNS: NSOfMachine(lab, fabricName), Port: w.port, Delay: time.Duration(w.segment.Delay),
				})
			}
		}
	}
	return out
}

// applyUnderlay makes the fabric and the machines equal to the plan.
func (b *box) applyUnderlay(ctx context.Context, u *underlay) (datapath.Diff, error) {
	fab, diff, err := b.ensureFabric(u)
	if err != nil {
		return diff, err
	}
	if fab.queues, err = queueing(fab.h); err != nil {
		return diff, err
	}
	diffs := make([]datapath.Diff, len(u.machines))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, m := range u.machines {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			diffs[i], err = b.ensureMachine(u, m, fab)
			return err
		})
	}
	err = g.Wait()
	for _, d := range diffs {
		diff = append(diff, d...)
	}
	return diff, err
}

// workers is how many machines or nodes are worked on at once: some more than
// two CPUs, as the kernel often makes them wait for RCU grace periods. Many more
// do not help: it serialises link changes under one lock (rtnl_mutex).
const workers = 4

// fabric is the open fabric with its bridges.
type fabric struct {
	*place
	bridges map[string]netlink.Link
	queues  map[string]bool // ports that hold a queueing discipline
}

func (b *box) ensureFabric(u *underlay) (*fabric, datapath.Diff, error) {
	name := NSOfMachine(b.lab, fabricName)
	made, err := b.ensureOpen(name)
	if err != nil {
		return nil, nil, err
	}
	open, err := b.machinePlace(name)
	if err != nil {
		return nil, nil, err
	}
	fab := &fabric{place: open, bridges: map[string]netlink.Link{}}
	var diff datapath.Diff
	if made {
		diff = append(diff, datapath.Change{Node: fabricName, Action: datapath.Add, Object: "namespace", Command: "ip netns add " + name})
		if err := fab.ns.Do(keepBridgesOffIPTables); err != nil {
			return nil, diff, fmt.Errorf("set up the fabric: %w", err)
		}
	}
	for _, seg := range u.segments {
		l, did, err := ensureBridge(fab.h, seg)
		diff = append(diff, did...)
		if err != nil {
			return nil, diff, fmt.Errorf("bridge of segment %s: %w", seg.Name, err)
		}
		fab.bridges[bridgeName(seg.Name)] = l
	}
	did, err := b.pruneFabric(fab.place, u)
	return fab, append(diff, did...), err
}

// ensureOpen opens or makes a machine's namespace and keeps it open.
func (b *box) ensureOpen(name string) (made bool, err error) {
	p, made, err := b.ensureNamespace(name)
	if err != nil {
		return made, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[name] != nil {
		p.close()
		return made, nil
	}
	b.open[name] = p
	return made, nil
}

// keepBridgesOffIPTables keeps br_netfilter out of the fabric, where it is on
// by default; a switch does not look at IP.
func keepBridgesOffIPTables() error {
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0o644)
	if errors.Is(err, os.ErrNotExist) { // a kernel without br_netfilter
		return nil
	}
	return err
}

func ensureBridge(h *nl.Handle, seg topology.Segment) (netlink.Link, datapath.Diff, error) {
	name := bridgeName(seg.Name)
	var diff datapath.Diff
	l, err := h.LinkByName(name)
	if nl.Missing(err) {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: seg.MTU}}
		if err := h.LinkAdd(br); err != nil {
			return nil, nil, err
		}
		diff = datapath.Diff{{Node: fabricName, Action: datapath.Add, Object: "link", Command: "ip link add " + name + " type bridge"}}
		l, err = h.LinkByName(name)
	}
	if err != nil {
		return nil, diff, err
	}
	if l.Attrs().MTU != seg.MTU {
		if err := h.LinkSetMTU(l, seg.MTU); err != nil {
			return nil, diff, err
		}
		diff = append(diff, datapath.Change{Node: fabricName, Action: datapath.Update, Object: "link", Command: fmt.Sprintf("ip link set %s mtu %d", name, seg.MTU)})
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		return l, diff, h.LinkSetUp(l)
	}
	return l, diff, nil
}

// pruneFabric removes bridges and ports that are no longer planned.
func (b *box) pruneFabric(fabric *place, u *underlay) (datapath.Diff, error) {
	want := map[string]bool{"lo": true}
	for _, seg := range u.segments {
		want[bridgeName(seg.Name)] = true
	}
	for _, ws := range u.wires {
		for _, w := range ws {
			want[w.port] = true
		}
	}
	links, err := nl.Dump(fabric.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the fabric: %w", err)
	}
	var diff datapath.Diff
	for _, l := range links {
		if want[l.Attrs().Name] {
			continue
		}
		diff = append(diff, datapath.Change{Node: fabricName, Action: datapath.Remove, Object: "link", Command: "ip link del " + l.Attrs().Name})
		if err := fabric.h.LinkDel(l); err != nil && !nl.Missing(err) {
			return diff, fmt.Errorf("remove %s from the fabric: %w", l.Attrs().Name, err)
		}
	}
	return diff, nil
}

func (b *box) ensureMachine(u *underlay, m machine, fab *fabric) (datapath.Diff, error) {
	name := NSOfMachine(b.lab, m.name)
	made, err := b.ensureOpen(name)
	if err != nil {
		return nil, err
	}
	node, err := b.machinePlace(name)
	if err != nil {
		return nil, err
	}
	var diff datapath.Diff
	if made {
		diff = append(diff, datapath.Change{Node: m.name, Action: datapath.Add, Object: "namespace", Command: "ip netns add " + name})
	}
	if m.forward {
		if err := node.ns.Do(enableForwarding); err != nil {
			return diff, fmt.Errorf("router %s: %w", m.name, err)
		}
	}
	for _, w := range u.wires[m.name] {
		did, err := w.ensure(node, fab.place, fab.bridges[w.bridge])
		diff = append(diff, did...)
		if err != nil {
			return diff, err
		}
		did, err = w.shape(node, fab.place, fab.queues, u.support)
		diff = append(diff, did...)
		if err != nil {
			return diff, err
		}
	}
	did, err := ensureRoutes(node.h, m, u.podRange)
	return append(diff, did...), err
}

func enableForwarding() error {
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// ensureRoutes makes the machine's static routes to other segments what the
// plan says, and removes static routes that it does not.
func ensureRoutes(h *nl.Handle, m machine, podRange netip.Prefix) (datapath.Diff, error) {
	have, err := nl.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: netlink.RouteProtocol(datapath.ProtoStatic)}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", m.name, err)
	}
	legs := map[string]int{}
	want := map[topology.UnderlayRoute]bool{}
	for _, r := range m.routes {
		want[r] = true
	}
	var diff datapath.Diff
	for _, l := range m.legs {
		link, err := h.LinkByName(l.Name)
		if err != nil {
			return nil, fmt.Errorf("routes of %s: %w", m.name, err)
		}
		legs[l.Name] = link.Attrs().Index
		for i := range have {
			if have[i].LinkIndex != link.Attrs().Index || have[i].Dst == nil || within(podRange, prefixOf(have[i].Dst)) {
				continue
			}
			via, _ := netip.AddrFromSlice(have[i].Gw)
			r := topology.UnderlayRoute{Dst: prefixOf(have[i].Dst), Via: via.Unmap(), Dev: l.Name}
			if want[r] {
				delete(want, r)
				continue
			}
			if have[i].Gw == nil {
				continue // on-link, as calico's way to the pods' gateway: a mode's
			}
			diff = append(diff, routeChange(m.name, datapath.Remove, r))
			if err := h.RouteDel(&have[i]); err != nil && !nl.Missing(err) {
				return diff, fmt.Errorf("remove route %s of %s: %w", r.Dst, m.name, err)
			}
		}
	}
	for _, r := range m.routes {
		if !want[r] {
			continue
		}
		diff = append(diff, routeChange(m.name, datapath.Add, r))
		route := &netlink.Route{Dst: ipNet(r.Dst), Gw: r.Via.AsSlice(), LinkIndex: legs[r.Dev], Protocol: netlink.RouteProtocol(datapath.ProtoStatic)}
		if !r.Via.IsValid() {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := h.RouteReplace(route); err != nil {
			return diff, fmt.Errorf("add %s to %s: %w", routeText(r), m.name, err)
		}
	}
	return diff, nil
}

// within reports whether a route belongs to a range: it leads to the range or
// to a part of it, and not to more.
func within(all, p netip.Prefix) bool { return p.Bits() >= all.Bits() && all.Overlaps(p) }

func routeChange(node string, a datapath.ChangeAction, r topology.UnderlayRoute) datapath.Change {
	verb := map[datapath.ChangeAction]string{datapath.Add: "add", datapath.Remove: "del"}[a]
	return datapath.Change{Node: node, Action: a, Object: "route", Command: "ip route " + verb + " " + routeText(r)}
}

// routeText is a route as `ip route` takes it.
func routeText(r topology.UnderlayRoute) string {
	dst, via := r.Dst.String(), ""
	if r.Dst.Bits() == 0 {
		dst = "default"
	}
	if r.Via.IsValid() {
		via = " via " + r.Via.String()
	}
	return dst + via + " dev " + r.Dev + " proto static"
}
