package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// errImplementation reports an IPIP tunnel for which nobody has decided yet who
// encapsulates, so that its device's kind is unknown.
var errImplementation = errors.New("ipip implementation is not decided")

// kernelLink turns a wanted link into what the kernel is to have: a tunnel that
// eBPF programs or a process serve is a TUN there.
func kernelLink(cfg datapath.NodeConfig, l datapath.Link) (datapath.Link, error) {
	if l.Kind != datapath.IPIP {
		return l, nil
	}
	switch {
	case cfg.IPIP != nil && cfg.IPIP.OnTUN():
		l.Kind = datapath.TUN
	case cfg.IPIP == nil || cfg.IPIP.Implementation != topology.IPIPKernel:
		return l, fmt.Errorf("link %s: %w", l.Name, errImplementation)
	}
	return l, nil
}

func (s *steps) links(st datapath.KernelState) error {
	have := map[string]datapath.LinkState{}
	for _, l := range st.Links {
		have[l.Name] = l
	}
	wanted := map[string]bool{}
	for _, w := range s.cfg.Links {
		want, err := kernelLink(s.cfg, w)
		if err != nil {
			return err
		}
		wanted[want.Name] = true
		is, ok := have[want.Name]
		switch {
		case !ok || isIdleFallback(is):
			s.add(stageLink, datapath.Add, "link", want.AddCommand(), "", func(h *Host) error { return h.addLink(want) })
			s.addresses(want, nil)
		case immutable(want) != immutable(is.Link):
			s.add(stageLink, datapath.Update, "link", want.AddCommand(), is.AddCommand(), func(h *Host) error { return h.replaceLink(want) })
			s.addresses(want, nil)
		default:
			s.attributes(want, is)
			s.addresses(want, is.Addresses)
		}
	}
	for _, l := range st.Links {
		if ownedLink.MatchString(l.Name) && !wanted[l.Name] && !isIdleFallback(l) {
			s.add(stageDropLink, datapath.Remove, "link", "ip link delete "+l.Name, l.AddCommand(), func(h *Host) error { return h.dropLink(l.Name) })
		}
	}
	return nil
}

// isIdleFallback recognises the tunl0 that the kernel's ipip module makes in
// every namespace and that cannot be deleted (net/ipv4/ip_tunnel.c,
// ip_tunnel_init_net): down and without addresses, it counts as absent.
func isIdleFallback(l datapath.LinkState) bool {
	return l.Kind == datapath.IPIP && !l.Up && len(l.Addresses) == 0
}

// immutable is the part of a link that only a new device can change.
func immutable(l datapath.Link) string {
	out := string(l.Kind)
	if l.VXLAN != nil {
		out += " " + l.VXLAN.String()
	}
	if l.VNetHdr {
		out += " vnet_hdr"
	}
	return out
}

// attributes compares what can be changed in place.
func (s *steps) attributes(want datapath.Link, is datapath.LinkState) {
	set := "ip link set " + want.Name + " "
	if want.MTU != 0 && is.MTU != want.MTU {
		s.add(stageLink, datapath.Update, "link", fmt.Sprintf("%smtu %d", set, want.MTU), fmt.Sprintf("mtu %d", is.MTU),
			func(h *Host) error { return h.setMTU(want.Name, want.MTU) })
	}
	if want.MAC != "" && !strings.EqualFold(is.MAC, want.MAC) {
		s.add(stageLink, datapath.Update, "link", set+"address "+want.MAC, "address "+is.MAC,
			func(h *Host) error { return h.setMAC(want.Name, want.MAC) })
	}
	if !is.Up {
		s.add(stageLink, datapath.Update, "link", set+"up", "down", func(h *Host) error { return h.setUp(want.Name) })
	}
}

// addresses compares a link's IPv4 addresses with those it has.
func (s *steps) addresses(want datapath.Link, is []netip.Prefix) {
	for _, a := range want.Addresses {
		if !slices.Contains(is, a) {
			s.add(stageAddress, datapath.Add, "address", fmt.Sprintf("ip address add %s dev %s", a, want.Name), "",
				func(h *Host) error { return h.addAddress(want.Name, a) })
		}
	}
	for _, a := range is {
		if !slices.Contains(want.Addresses, a) {
			s.add(stageDropAddress, datapath.Remove, "address", fmt.Sprintf("ip address delete %s dev %s", a, want.Name), a.String(),
				func(h *Host) error { return h.dropAddress(want.Name, a) })
		}
	}
}
