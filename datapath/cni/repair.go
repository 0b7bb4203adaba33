package cni

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/nl"
)

// repair is one pass over an attachment whose veth pair exists: it compares
// each property with what is wanted and sets what differs, or, when dry, only
// notes it. After a fresh creation it sets without reading.
type repair struct {
	node    *Node
	pod     *nl.Handle
	want    want
	host    hostLink
	eth     netlink.Link // the pod's end as it was found; nil when fresh
	fresh   bool         // just made by us: link attributes are right, nothing else is there
	dry     bool
	changed bool
	found   []error // dry: what differs
}

func (r *repair) run() (bool, error) {
	steps := []func() error{r.hostEnd, r.bridgePort, r.podEnd, r.address, r.routes}
	if r.want.routed() {
		steps = append(steps, r.settings, r.hostRoute, r.gateway)
	}
	if r.want.gatewayMAC != nil {
		steps = append(steps, r.neighbors)
	} else if r.fresh && !r.want.routed() {
		steps = append(steps, r.forget)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return r.changed, err
		}
	}
	return r.changed, nil
}

// fix notes a difference, or removes it by calling set.
func (r *repair) fix(what string, set func() error) error {
	if r.dry {
		r.found = append(r.found, fmt.Errorf("%w: %s", ErrDiffers, what))
		return nil
	}
	if err := set(); err != nil {
		return fmt.Errorf("set %s: %w", what, err)
	}
	r.changed = true
	return nil
}

// hostEnd: MAC, MTU, alias, up.
func (r *repair) hostEnd() error {
	if r.fresh {
		return nil
	}
	h, w := r.node.h, r.want
	link := &netlink.Veth{LinkAttrs: *r.host.LinkAttrs}
	if r.host.Alias != w.alias {
		if err := r.fix("alias of "+w.HostIf, func() error { return h.LinkSetAlias(link, w.alias) }); err != nil {
			return err
		}
	}
	return r.end(h, link, w.HostIf, w.hostMAC)
}

// podEnd: MAC, MTU, up.
func (r *repair) podEnd() error {
	if r.fresh {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: r.host.peer()}}
		return r.fix(r.want.ContainerIf+" up", func() error {
			if err := keepIPv6Quiet(r.pod, link); err != nil {
				return err
			}
			return r.pod.LinkSetUp(link)
		})
	}
	return r.end(r.pod, r.eth, r.want.ContainerIf, r.want.podMAC)
}

// genModeNone is IN6_ADDR_GEN_MODE_NONE (linux include/uapi/linux/if_link.h).
const genModeNone = 1

// keepIPv6Quiet keeps a link without a link-local address, and so without
// duplicate address detection and router solicitations, which would stand in
// every capture. Unlike the sysctl disable_ipv6 this costs the same however many
// namespaces there are: below /proc/sys/net the kernel searches all of them.
func keepIPv6Quiet(h *nl.Handle, link netlink.Link) error {
	err := h.LinkSetIP6AddrGenMode(link, genModeNone)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) { // a kernel without IPv6
		return nil
	}
	return err
}

func (r *repair) end(h *nl.Handle, link netlink.Link, name string, mac net.HardwareAddr) error {
	a := link.Attrs()
	var errs []error
	if !sameMAC(mac, a.HardwareAddr) {
		errs = append(errs, r.fix("MAC of "+name, func() error { return h.LinkSetHardwareAddr(link, mac) }))
	}
	if r.want.MTU > 0 && a.MTU != r.want.MTU {
		errs = append(errs, r.fix("MTU of "+name, func() error { return h.LinkSetMTU(link, r.want.MTU) }))
	}
	if a.Flags&net.FlagUp == 0 {
		errs = append(errs, r.fix(name+" up", func() error { return h.LinkSetUp(link) }))
	}
	return errors.Join(errs...)
}

// bridgePort: the right master or none, hairpin as wanted, never isolated.
func (r *repair) bridgePort() error {
	if r.fresh {
		return nil
	}
	h, w := r.node.h, r.want
	link := &netlink.Veth{LinkAttrs: *r.host.LinkAttrs}
	master, err := r.node.bridge(w.Bridge, false)
	if err == nil && r.host.MasterIndex != master {
		master, err = r.node.bridge(w.Bridge, true)
	}
	if err != nil {
		return err
	}
	if r.host.MasterIndex != master {
		err = r.fix("master of "+w.HostIf, func() error { return h.LinkSetMasterByIndex(link, master) })
		if err != nil {
			return err
		}
		r.host.hairpin, r.host.isolated = false, false // a new port starts with the defaults
	}
	if w.routed() {
		return nil
	}
	var errs []error
	if r.host.hairpin != w.Hairpin {
		errs = append(errs, r.fix("hairpin mode of "+w.HostIf, func() error { return h.LinkSetHairpin(link, w.Hairpin) }))
	}
	if r.host.isolated {
		errs = append(errs, r.fix("isolation of "+w.HostIf, func() error { return h.LinkSetIsolated(link, false) }))
	}
	return errors.Join(errs...)
}

// address: exactly the wanted one.
func (r *repair) address() error {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: r.want.ContainerIf, Index: r.host.peer()}}
	addr := &netlink.Addr{IPNet: ipNet(r.want.Address)}
	missing := true
	if !r.fresh {
		have, err := nl.Dump(func() ([]netlink.Addr, error) { return r.pod.AddrList(link, netlink.FAMILY_V4) })
		if err != nil {
			return fmt.Errorf("list addresses of the pod: %w", err)
		}
		for _, a := range have {
			if a.Equal(*addr) {
				missing = false
				continue
			}
			if err := r.fix("foreign address "+a.IPNet.String(), func() error { return r.pod.AddrDel(link, &a) }); err != nil {
				return err
			}
		}
	}
	if !missing {
		return nil
	}
	return r.fix("address "+r.want.Address.String(), func() error { return r.pod.AddrAdd(link, addr) })
}

// routes: exactly the wanted ones through the pod's interface, next to those
// that the kernel makes itself.
func (r *repair) routes() error {
	wanted := r.want.podRoutes(r.host.peer())
	var have []netlink.Route
	if !r.fresh {
		all, err := nl.Dump(func() ([]netlink.Route, error) {
			return r.pod.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: r.host.peer()}, netlink.RT_FILTER_OIF)
		})
		if err != nil {
			return fmt.Errorf("list routes of the pod: %w", err)
		}
		for _, route := range all {
			if route.Protocol != unix.RTPROT_KERNEL {
				have = append(have, route)
			}
		}
	}
	for _, route := range have {
		if contains(wanted, route) {
			continue
		}
		if err := r.fix("foreign route "+ipNetString(route.Dst), func() error { return r.pod.RouteDel(&route) }); err != nil {
			return err
		}
	}
	for _, route := range wanted {
		if contains(have, route) {
			continue
		}
		if err := r.fix("route "+ipNetString(route.Dst), func() error { return r.pod.RouteAdd(&route) }); err != nil {
			return err
		}
	}
	return nil
}

func contains(list []netlink.Route, r netlink.Route) bool {
	for _, x := range list {
		if sameRoute(x, r) {
			return true
		}
	}
	return false
}

// settings of the host end below /proc/sys/net/ipv4/{conf,neigh}.
func (r *repair) settings() error {
	rt, index := r.node.rt, r.host.Index
	setDelay := func() error { return r.node.setProxyDelay(index, proxyDelay) }
	if r.fresh {
		return r.fix("proxy_delay of "+r.want.HostIf, setDelay)
	}
	for _, c := range routedDevconf {
		if have, ok := r.host.conf(c.id); ok && have == c.value {
			continue
		}
		err := r.fix(c.name+" of "+r.want.HostIf, func() error { return rt.setDevconf(index, []devconf{c}) })
		if err != nil {
			return err
		}
	}
	have, err := r.node.proxyDelay(index)
	if err != nil || have == proxyDelay {
		return err
	}
	return r.fix("proxy_delay of "+r.want.HostIf, setDelay)
}

// hostRoute leads the node to a routed pod.
func (r *repair) hostRoute() error {
	route := r.want.hostRoute(r.host.Index)
	if !r.fresh {
		// The matching entry of the table, not a dump of it: nodes have many.
		have, err := r.node.h.RouteGetWithOptions(route.Dst.IP, &netlink.RouteGetOptions{FIBMatch: true})
		if err == nil && len(have) == 1 && sameRoute(have[0], route) {
			return nil
		}
	}
	return r.fix("route "+ipNetString(route.Dst), func() error { return r.node.h.RouteReplace(&route) })
}

// gateway verifies that the node would route the gateway's address out of
// another device than the pod's, without which it does not answer ARP for it.
func (r *repair) gateway() error {
	if !r.want.Gateway.IsValid() {
		return nil
	}
	return r.node.covers(r.want.Gateway.AsSlice(), r.host.Index)
}
