package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
)

type arpKey struct {
	end  wireEnd
	addr netip.Addr
}

// neighbor finds the MAC of the next hop (net/ipv4/ip_output.c,
// ip_finish_output2): from the neighbour table, else by ARP. It is empty on
// devices without link layer addresses.
func (w *walk) neighbor(pl *place, dev *datapath.Device, gw netip.Addr, s *skb) (string, *fault) {
	s.neighbor, s.neighborOf = "", ""
	if plain(dev) {
		return "", nil
	}
	key := arpKey{wireEnd{pl.name, dev.Name}, gw}
	if mac, ok := w.arp[key]; ok {
		s.neighbor, s.neighborOf = fmt.Sprintf("%s dev %s lladdr %s (by ARP)", gw, dev.Name, mac), pl.label()
		return mac, nil
	}
	for i := range pl.st.Neighbors {
		n := &pl.st.Neighbors[i]
		if n.Dev == dev.Name && n.Address == gw && !n.Proxy && n.MAC != "" && valid(n.State) {
			s.neighbor, s.neighborOf = fmt.Sprintf("%s dev %s lladdr %s %s", gw, dev.Name, n.MAC, strings.ToUpper(n.State)), pl.label()
			return n.MAC, nil
		}
	}
	if flt := deviceDown(pl, dev, false); flt != nil {
		return "", flt
	}
	mac, flt := w.resolve(pl, dev, gw, s)
	if flt != nil {
		return "", flt
	}
	w.arp[key] = mac
	s.neighbor, s.neighborOf = fmt.Sprintf("%s dev %s lladdr %s (by ARP)", gw, dev.Name, mac), pl.label()
	return mac, nil
}

// valid reports NUD_VALID (include/net/neighbour.h): the entry's MAC is used,
// even if it is old.
func valid(state string) bool {
	switch state {
	case "failed", "incomplete", "none":
		return false
	}
	return true
}

// resolve asks the link who has an address.
func (w *walk) resolve(pl *place, dev *datapath.Device, gw netip.Addr, s *skb) (string, *fault) {
	who := stations{w: w, seen: map[wireEnd]bool{}}
	who.transmit(pl, dev)
	sender := s.p.Src // arp_solicit: the packet's own source where that is ours
	if !pl.isLocal(sender) {
		sender, _ = selectAddress(pl, dev.Name, gw, scopeLink)
	}
	var owners []station
	for _, st := range who.found {
		if w.answersARP(st, gw, sender) {
			owners = append(owners, st)
		}
	}
	switch {
	case len(owners) == 1:
		own := owners[0]
		// Who is asked learns the asker (net/ipv4/arp.c, arp_process).
		if sender.IsValid() {
			w.arp[arpKey{wireEnd{own.pl.name, own.dev.Name}, sender}] = dev.MAC
		}
		return own.dev.MAC, nil
	case len(owners) > 1:
		return "", duplicate(gw, dev, owners)
	case len(who.errs) > 0:
		return "", unknownFault("neighbor", "", "whether somebody answers ARP for %s on %s is not known: %v", gw, dev.Name, errors.Join(who.errs...))
	}
	return "", w.noNeighbor(pl, dev, gw, sender)
}

// noNeighbor is an address that nobody answers for. Who would, were it not for
// something in between, is a hint.
func (w *walk) noNeighbor(pl *place, dev *datapath.Device, gw, sender netip.Addr) *fault {
	f := &fault{
		reason: ReasonNoNeighbor, table: "neighbor",
		text: fmt.Sprintf("nobody on the link of %s answers ARP for %s; after three seconds without, the kernel tells the sender that the host is unreachable", dev.Name, gw),
		hint: fmt.Sprintf("ip neigh show dev %s to %s on %s", dev.Name, gw, pl.label()),
	}
	for _, n := range pl.st.Neighbors {
		if n.Dev == dev.Name && n.Address == gw {
			f.rule = fmt.Sprintf("%s dev %s %s", gw, dev.Name, strings.ToUpper(n.State))
		}
	}
	anyway := stations{w: w, seen: map[wireEnd]bool{}, anyway: true}
	anyway.transmit(pl, dev)
	for _, st := range anyway.found {
		if st.shut != "" && w.answersARP(st, gw, sender) {
			f.hint = fmt.Sprintf("%s would answer, but %s", st.pl.label(), st.shut)
		}
	}
	if dev.Kind == "vxlan" {
		f.text = fmt.Sprintf("%s has no neighbour entry for the VTEP %s, and no ARP passes through the tunnel", dev.Name, gw)
		f.hint = fmt.Sprintf("ip neigh replace %s dev %s lladdr MAC nud permanent on %s", gw, dev.Name, pl.label())
	}
	return f
}

func duplicate(gw netip.Addr, dev *datapath.Device, owners []station) *fault {
	var names []string
	for _, o := range owners {
		names = append(names, fmt.Sprintf("%s (%s, MAC %s)", o.pl.label(), o.dev.Name, o.dev.MAC))
	}
	slices.Sort(names)
	f := unknownFault("neighbor", "", "%s answer ARP for %s: whoever is faster gets the packet", strings.Join(names, " and "), gw)
	f.reason, f.hint = ReasonDuplicate, "only one place may own an address"
	return f
}

// answersARP is arp_process (net/ipv4/arp.c): does a station answer for target?
func (w *walk) answersARP(st station, target, sender netip.Addr) bool {
	pl, dev := st.pl, st.dev
	if len(dev.Addresses) == 0 && !proxies(pl, dev) && !pl.isLocal(target) {
		return false
	}
	quiet := *w
	quiet.choose = nil // a lookup of its own, no way to fork
	ask := &skb{p: datapath.Packet{Src: sender, Dst: target}}
	if !sender.IsValid() {
		ask.p.Src = target
	}
	rt, flt := quiet.routeInput(pl, ask, dev)
	if flt != nil {
		return false
	}
	if rt.here {
		return !ignoresARP(pl, dev, target, sender)
	}
	if rt.dev == dev.Name || dev.Conf.Forwarding == 0 {
		return false
	}
	return proxies(pl, dev) || proxyEntry(pl, dev, target) // arp_fwd_proxy, pneigh_lookup
}

func proxies(pl *place, dev *datapath.Device) bool {
	return pl.st.All.ProxyARP != 0 || dev.Conf.ProxyARP != 0
}

func proxyEntry(pl *place, dev *datapath.Device, target netip.Addr) bool {
	return slices.ContainsFunc(pl.st.Neighbors, func(n datapath.NeighborState) bool {
		return n.Proxy && n.Address == target && (n.Dev == dev.Name || n.Dev == "")
	})
}

// ignoresARP is arp_ignore (net/ipv4/arp.c; Documentation/networking/ip-sysctl.rst).
func ignoresARP(pl *place, dev *datapath.Device, target, sender netip.Addr) bool {
	on := func(ok func(netip.Prefix) bool) bool { return slices.ContainsFunc(dev.Addresses, ok) }
	switch max(pl.st.All.ARPIgnore, dev.Conf.ARPIgnore) {
	case 0:
		return false
	case 1:
		return !on(func(p netip.Prefix) bool { return p.Addr() == target })
	case 2:
		return !on(func(p netip.Prefix) bool { return p.Addr() == target && p.Masked().Contains(sender) })
	case 8:
		return true
	}
	return false
}
