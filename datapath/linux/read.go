package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/nl"
	"slipway/internal/run"
)

// nodeSysctls are read in any case: they decide whether a node forwards.
var nodeSysctls = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter",
	"net/ipv4/conf/all/proxy_arp", "net/bridge/bridge-nf-call-iptables",
}

// Read reads the host's state, with the sysctls that decide whether it forwards
// and those asked for. Every kind of object is dumped once.
func (h *Host) Read(ctx context.Context, sysctls ...string) (datapath.KernelState, error) {
	var rules allRules
	if !h.opts.SkipRules {
		var err error
		if rules, err = h.readRules(ctx); err != nil {
			return datapath.KernelState{}, fmt.Errorf("read %s: %w", h.ns.Name(), err)
		}
	}
	return h.read(ctx, sysctls, rules)
}

// read is Read with rules that are already known.
func (h *Host) read(ctx context.Context, sysctls []string, rules allRules) (datapath.KernelState, error) {
	st := datapath.KernelState{Namespace: h.ns.Name(), RuleSave: rules.save, NFTables: rules.nft}
	for _, part := range []func(*datapath.KernelState) error{
		h.readLinks, h.readRoutes, h.readNeighbors,
		func(st *datapath.KernelState) error { return h.readInside(st, sysctls) },
	} {
		if err := errors.Join(ctx.Err(), part(&st)); err != nil {
			return st, fmt.Errorf("read %s: %w", h.ns.Name(), err)
		}
	}
	return st, nil
}

func (h *Host) readLinks(st *datapath.KernelState) error {
	links, err := nl.Dump(h.nl.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	addrs, err := nl.Dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	names := map[int]string{}
	h.indexes = map[string]int{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		h.indexes[l.Attrs().Name] = l.Attrs().Index
	}
	prefixes := map[int][]netip.Prefix{}
	for _, a := range addrs {
		if p, ok := prefix(a.IPNet); ok {
			prefixes[a.LinkIndex] = append(prefixes[a.LinkIndex], p)
		}
	}
	for _, l := range links {
		st.Links = append(st.Links, linkState(l, names, prefixes[l.Attrs().Index]))
	}
	return nil
}

func linkState(l netlink.Link, names map[int]string, prefixes []netip.Prefix) datapath.LinkState {
	a := l.Attrs()
	out := datapath.LinkState{
		Link:  datapath.Link{Name: a.Name, Kind: datapath.LinkKind(l.Type()), MTU: a.MTU, MAC: a.HardwareAddr.String()},
		Index: a.Index, Type: l.Type(), Up: a.Flags&net.FlagUp != 0, Master: names[a.MasterIndex],
		Alias: a.Alias, PeerNSID: a.NetNsID, Prefixes: prefixes,
	}
	for _, p := range prefixes {
		if p.Addr().Is4() {
			out.Addresses = append(out.Addresses, p)
		}
	}
	switch x := l.(type) {
	case *netlink.Vxlan:
		local, _ := netip.AddrFromSlice(x.SrcAddr)
		out.VXLAN = &datapath.VXLANAttrs{VNI: x.VxlanId, Port: x.Port, Local: local.Unmap(), Device: names[x.VtepDevIndex], Learning: x.Learning, External: x.FlowBased}
	case *netlink.Tuntap:
		out.Type = x.Mode.String()
		out.Kind = datapath.LinkKind(out.Type)
		out.VNetHdr = x.Flags&netlink.TUNTAP_VNET_HDR != 0
	}
	return out
}

// routeTypes are the route types that have a name here; others are shown with
// their number.
var routeTypes = map[int]datapath.RouteType{
	unix.RTN_UNICAST: datapath.Unicast, unix.RTN_BLACKHOLE: datapath.Blackhole,
	unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

func (h *Host) readRoutes(st *datapath.KernelState) error {
	routes, err := nl.Dump(func() ([]netlink.Route, error) { return h.nl.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	names := make(map[int]string, len(h.indexes))
	for name, i := range h.indexes {
		names[i] = name
	}
	for _, r := range routes {
		dst, ok := prefix(r.Dst)
		if !ok {
			dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		kind, ok := routeTypes[r.Type]
		if !ok {
			kind = datapath.RouteType(fmt.Sprintf("type-%d", r.Type))
		}
		st.Routes = append(st.Routes, datapath.Route{
			Dst: dst, Type: kind, Via: addr(r.Gw), Dev: names[r.LinkIndex], Src: addr(r.Src),
			Onlink: r.Flags&int(netlink.FLAG_ONLINK) != 0, LinkScope: r.Scope == netlink.SCOPE_LINK,
			Protocol: datapath.RouteProtocol(r.Protocol), MTU: r.MTU,
		})
	}
	return nil
}

func (h *Host) readNeighbors(st *datapath.KernelState) error {
	names := make(map[int]string, len(h.indexes))
	for name, i := range h.indexes {
		names[i] = name
	}
	neighbors, err := nl.Dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(0, netlink.FAMILY_V4) })
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range neighbors {
		if n.State&netlink.NUD_PERMANENT != 0 {
			st.Neighbors = append(st.Neighbors, datapath.Neighbor{Dev: names[n.LinkIndex], Address: addr(n.IP), MAC: n.HardwareAddr.String()})
		}
	}
	fdb, err := nl.Dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return fmt.Errorf("list fdb: %w", err)
	}
	for _, n := range fdb {
		st.FDB = append(st.FDB, datapath.FDBEntry{Dev: names[n.LinkIndex], MAC: n.HardwareAddr.String(), Dst: addr(n.IP)})
	}
	return nil
}

// readInside reads what has to be read by a thread inside the namespace.
func (h *Host) readInside(st *datapath.KernelState, extra []string) error {
	return h.ns.Do(func() error {
		seen := map[string]bool{}
		for _, key := range append(append([]string{}, nodeSysctls...), extra...) {
			if seen[key] {
				continue
			}
			seen[key] = true
			value, err := os.ReadFile(sysctlPath(key))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("read sysctl: %w", err)
			}
			st.Sysctls = append(st.Sysctls, datapath.Sysctl{Key: key, Value: strings.TrimSpace(string(value))})
		}
		hairpin, err := nl.Dump(hairpinPorts)
		if err != nil {
			return fmt.Errorf("list bridge ports: %w", err)
		}
		for i := range st.Links {
			st.Links[i].Hairpin = hairpin[st.Links[i].Index]
		}
		return nil
	})
}

// sysctlPath is the file of a key. The files below net show the namespace of
// the thread that opens them (linux net/sysctl_net.c, net_ctl_root).
func sysctlPath(key string) string { return "/proc/sys/" + key }

func (h *Host) writeSysctl(s datapath.Sysctl) error {
	err := h.ns.Do(func() error { return os.WriteFile(sysctlPath(s.Key), []byte(s.Value), 0o644) })
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(s.Key, "net/bridge/") {
		return fmt.Errorf("%w (the kernel module br_netfilter is not loaded)", err)
	}
	return err
}

// hairpinPorts dumps the bridge ports of the calling thread's namespace that
// are in hairpin mode, by link index, in one request.
func hairpinPorts() (map[int]bool, error) {
	req := vnl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(vnl.NewIfInfomsg(unix.AF_BRIDGE))
	messages, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	out := map[int]bool{}
	for _, m := range messages {
		info := vnl.DeserializeIfInfomsg(m)
		attrs, err := vnl.ParseRouteAttr(m[info.Len():])
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED != unix.IFLA_PROTINFO {
				continue
			}
			port, err := vnl.ParseRouteAttr(a.Value)
			if err != nil {
				return nil, err
			}
			for _, p := range port {
				if p.Attr.Type == vnl.IFLA_BRPORT_MODE && len(p.Value) > 0 && p.Value[0] == 1 {
					out[int(info.Index)] = true
				}
			}
		}
	}
	return out, nil
}

// allRules are a host's iptables tables, and those of nftables that can be ours;
// each nil if not known.
type allRules struct {
	save map[string]string
	nft  []datapath.NFTable
}

func (h *Host) readRules(ctx context.Context) (r allRules, err error) {
	var before uint32
	if !h.tables.legacy {
		if err := h.ns.Do(func() (err error) { before, err = generation(); return err }); err != nil {
			return r, err
		}
	}
	if r.save, err = h.readIPTables(ctx); err != nil {
		return r, err
	}
	r.nft, err = h.readTables(ctx)
	if !h.tables.legacy && before != h.nftSeen {
		h.nftSeen = 0 // of which moment the rules are is not known
	}
	return r, err
}

// readIPTables reads all tables; without any, it starts no process.
func (h *Host) readIPTables(ctx context.Context) (map[string]string, error) {
	if h.tables.legacy {
		var names []byte
		err := h.ns.Do(func() (err error) {
			// Not /proc/net, which shows the process's and not the thread's namespace.
			names, err = os.ReadFile("/proc/thread-self/net/ip_tables_names")
			return err
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list iptables tables: %w", err)
		}
		if len(bytes.TrimSpace(names)) == 0 {
			return map[string]string{}, nil
		}
	}
	out, err := run.Cmd{NS: h.ns, Name: h.tables.save, Env: h.environ()}.Output(ctx)
	if err != nil {
		return nil, fmt.Errorf("read iptables: %w", err)
	}
	return splitTables(string(out)), nil
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a := addr(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits), a.IsValid()
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
