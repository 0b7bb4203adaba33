package linux

import (
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// normalRoute is r in the form in which equal routes are equal values.
func normalRoute(r datapath.Route) datapath.Route {
	r.Dst = r.Dst.Masked()
	if r.Protocol == 0 {
		r.Protocol = datapath.ProtoBoot
	}
	if r.Type == datapath.Blackhole {
		r.Dev, r.LinkScope = "", false
	}
	return r
}

func (s *steps) routes(st datapath.KernelState) {
	wanted := map[datapath.Route]bool{}
	byDst := map[string]datapath.Route{}
	have := map[datapath.Route]bool{}
	for _, r := range st.Routes {
		r = normalRoute(r)
		have[r] = true
		if r.Protocol != datapath.ProtoKernel {
			byDst[r.Dst.String()] = r
		}
	}
	for _, r := range s.cfg.Routes {
		r = normalRoute(r)
		wanted[r] = true
		if have[r] {
			continue
		}
		action, was := datapath.Add, ""
		if old, ok := byDst[r.Dst.String()]; ok {
			action, was = datapath.Update, old.String()
			wanted[old] = true // replaced, so not to be removed as well
		}
		s.add(stageRoute, action, "route", "ip route replace "+r.String(), was, func(h *Host) error { return h.setRoute(r) })
	}
	for _, r := range st.Routes {
		if r = normalRoute(r); !wanted[r] && ownsRoute(s.cfg, r) {
			s.add(stageDropRoute, datapath.Remove, "route", "ip route delete "+r.String(), r.String(), func(h *Host) error { return h.dropRoute(r) })
		}
	}
}

func (s *steps) neighbors(st datapath.KernelState) {
	type key struct {
		dev  string
		addr string
	}
	have, wanted := map[key]string{}, map[key]bool{}
	for _, n := range st.Neighbors {
		have[key{n.Dev, n.Address.String()}] = n.MAC
	}
	for _, n := range s.cfg.Neighbors {
		k := key{n.Dev, n.Address.String()}
		wanted[k] = true
		was, ok := have[k]
		if ok && strings.EqualFold(was, n.MAC) {
			continue
		}
		action := datapath.Add
		if ok {
			action, was = datapath.Update, "lladdr "+was
		}
		s.add(stageNeighbor, action, "neighbor", "ip neighbor replace "+n.String(), was, func(h *Host) error { return h.setNeighbor(n) })
	}
	for _, n := range st.Neighbors {
		if ownsNeighbor(n) && !wanted[key{n.Dev, n.Address.String()}] {
			s.add(stageDropNeighbor, datapath.Remove, "neighbor", "ip neighbor delete "+n.Address.String()+" dev "+n.Dev, n.String(),
				func(h *Host) error { return h.dropNeighbor(n) })
		}
	}
}

func (s *steps) fdb(st datapath.KernelState) {
	type key struct{ dev, mac string }
	have, wanted := map[key]netip.Addr{}, map[key]bool{}
	for _, f := range st.FDB {
		f = normalFDB(f)
		have[key{f.Dev, f.MAC}] = f.Dst
	}
	for _, f := range s.cfg.FDB {
		f = normalFDB(f)
		wanted[key{f.Dev, f.MAC}] = true
		dst, ok := have[key{f.Dev, f.MAC}]
		if ok && dst == f.Dst {
			continue
		}
		action, was := datapath.Add, ""
		if ok {
			action, was = datapath.Update, "dst "+dst.String()
		}
		s.add(stageFDB, action, "fdb", "bridge fdb replace "+f.String(), was, func(h *Host) error { return h.setFDB(f) })
	}
	for _, f := range st.FDB {
		if f = normalFDB(f); f.Dst.IsValid() && ownedLink.MatchString(f.Dev) && !wanted[key{f.Dev, f.MAC}] {
			s.add(stageDropNeighbor, datapath.Remove, "fdb", "bridge fdb delete "+f.String(), f.String(), func(h *Host) error { return h.dropFDB(f) })
		}
	}
}

func normalFDB(f datapath.FDBEntry) datapath.FDBEntry {
	f.MAC = strings.ToLower(f.MAC)
	return f
}

// kernelRoute turns a route into netlink's form.
func (h *Host) kernelRoute(r datapath.Route) (*netlink.Route, error) {
	out := &netlink.Route{Dst: ipNet(r.Dst), Protocol: netlink.RouteProtocol(r.Protocol), MTU: r.MTU, Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN}
	if r.Type == datapath.Blackhole {
		out.Type = unix.RTN_BLACKHOLE
	}
	if r.LinkScope {
		out.Scope = netlink.SCOPE_LINK
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
	}
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	if r.Onlink {
		out.Flags = int(netlink.FLAG_ONLINK)
	}
	if r.Dev != "" {
		i, err := h.index(r.Dev)
		if err != nil {
			return nil, err
		}
		out.LinkIndex = i
	}
	return out, nil
}

func (h *Host) setRoute(r datapath.Route) error {
	k, err := h.kernelRoute(r)
	if err != nil {
		return err
	}
	return h.nl.RouteReplace(k)
}

func (h *Host) dropRoute(r datapath.Route) error {
	k, err := h.kernelRoute(r)
	if err != nil {
		return ignoreMissing(err)
	}
	return ignoreMissing(h.nl.RouteDel(k))
}

func (h *Host) neighbor(n datapath.Neighbor) (*netlink.Neigh, error) {
	i, err := h.index(n.Dev)
	if err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return nil, err
	}
	return &netlink.Neigh{LinkIndex: i, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: n.Address.AsSlice(), HardwareAddr: mac}, nil
}

func (h *Host) setNeighbor(n datapath.Neighbor) error {
	k, err := h.neighbor(n)
	if err != nil {
		return err
	}
	return h.nl.NeighSet(k)
}

func (h *Host) dropNeighbor(n datapath.Neighbor) error {
	k, err := h.neighbor(n)
	if err != nil {
		return ignoreMissing(err)
	}
	return ignoreMissing(h.nl.NeighDel(k))
}

func (h *Host) fdbEntry(f datapath.FDBEntry) (*netlink.Neigh, error) {
	n, err := h.neighbor(datapath.Neighbor{Dev: f.Dev, Address: f.Dst, MAC: f.MAC})
	if err != nil {
		return nil, err
	}
	n.Family, n.Flags = unix.AF_BRIDGE, netlink.NTF_SELF
	return n, nil
}

// setFDB replaces, because the kernel silently ignores an append to a unicast
// address that it has (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_update_existing).
func (h *Host) setFDB(f datapath.FDBEntry) error {
	k, err := h.fdbEntry(f)
	if err != nil {
		return err
	}
	return h.nl.NeighSet(k)
}

func (h *Host) dropFDB(f datapath.FDBEntry) error {
	k, err := h.fdbEntry(f)
	if err != nil {
		return ignoreMissing(err)
	}
	return ignoreMissing(h.nl.NeighDel(k))
}
