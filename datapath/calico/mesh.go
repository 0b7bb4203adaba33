package calico

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"slipway/datapath"
	"slipway/topology"
)

// member is a machine that speaks BGP.
type member struct {
	name       string
	interfaces []topology.Interface
	routes     []topology.UnderlayRoute
	router     bool
	reflector  bool
}

// id is the member's router ID: its first address (RFC 4271 §4.2).
func (m member) id() netip.Addr { return m.interfaces[0].Prefix.Addr() }

// facing is the address under which o knows m: the one in a segment that both
// are in, else the one that m's own packets towards o carry.
func (m member) facing(o member) netip.Addr {
	for _, i := range m.interfaces {
		for _, j := range o.interfaces {
			if i.Segment == j.Segment {
				return i.Prefix.Addr()
			}
		}
	}
	for _, r := range m.routes {
		if !r.Dst.Contains(o.id()) {
			continue
		}
		for _, i := range m.interfaces {
			if i.Name == r.Dev {
				return i.Prefix.Addr()
			}
		}
	}
	return m.id()
}

// waits reports whether m leaves it to o to connect, so that exactly one of two
// does. Routers wait for nodes, because a node connects from its only address;
// else the higher router ID waits for the lower.
func (m member) waits(o member) bool {
	if m.router != o.router {
		return m.router
	}
	return o.id().Less(m.id())
}

// members are all BGP speakers: nodes in file order, then routers.
func members(s topology.Snapshot) []member {
	var out []member
	reflects := func(name string) bool {
		return s.Network.BGP.Topology == topology.RouteReflectors && slices.Contains(s.Network.BGP.RouteReflectors, name)
	}
	for _, n := range s.Nodes {
		if n.InDatapath() {
			out = append(out, member{name: n.Name, interfaces: []topology.Interface{n.Interface}, routes: n.Routes, reflector: reflects(n.Name)})
		}
	}
	for _, r := range s.Routers {
		if routerSpeaks(s, r.Name) {
			out = append(out, member{name: r.Name, interfaces: r.Interfaces, routes: r.Routes, router: true, reflector: reflects(r.Name)})
		}
	}
	return out
}

// routerSpeaks reports whether a router takes part: where it forwards pods'
// packets bare, from one segment to another, it must know the blocks; and a
// reflector speaks in any case.
func routerSpeaks(s topology.Snapshot, name string) bool {
	if s.Network.Mode == topology.CalicoBGP && len(s.Segments) > 1 {
		return true
	}
	return s.Network.BGP.Topology == topology.RouteReflectors && slices.Contains(s.Network.BGP.RouteReflectors, name)
}

// speaker is a member's BGP configuration, without what it announces and
// accepts. A router listens on all its addresses, as its peers know it under
// different ones.
func speaker(s topology.Snapshot, name string) (*datapath.Speaker, error) {
	all := members(s)
	i := slices.IndexFunc(all, func(m member) bool { return m.name == name })
	if i < 0 {
		return nil, fmt.Errorf("plan %s for %s: it speaks no BGP", s.Network.Mode, name)
	}
	self := all[i]
	sp := &datapath.Speaker{ASN: s.Network.BGP.ASN, RouterID: self.id(), Listen: self.id()}
	if self.router {
		sp.Listen = netip.IPv4Unspecified()
	}
	if self.reflector {
		sp.ClusterID = self.id()
	}
	for _, o := range all {
		if o.name == name || !peering(s.Network.BGP.Topology, self, o) {
			continue
		}
		sp.Peers = append(sp.Peers, datapath.Peer{
			Name: o.name, Address: o.facing(self), ASN: s.Network.BGP.ASN,
			ReflectorClient: self.reflector && !o.reflector, Passive: self.waits(o),
		})
	}
	sp.Peers = append(sp.Peers, externalPeers(s.Network.BGP, self)...)
	return sp, nil
}

// externalPeers are the neighbours outside the cluster, which peer with every
// member as calico's global BGPPeers do; with reflectors, with those alone, as
// their clients if they are of the same AS.
func externalPeers(b topology.BGP, self member) []datapath.Peer {
	if b.Topology == topology.RouteReflectors && !self.reflector {
		return nil
	}
	var out []datapath.Peer
	for _, p := range b.Peers {
		out = append(out, datapath.Peer{
			Name: p.Address.String(), Address: p.Address, ASN: p.ASN,
			ReflectorClient: self.reflector && p.ASN == b.ASN, Passive: true, External: true,
		})
	}
	return out
}

// peering reports whether two members have a session: all have in a full mesh;
// with reflectors, those of which one reflects (RFC 4456 §6: reflectors mesh
// among themselves).
func peering(t topology.BGPTopology, a, b member) bool {
	return t != topology.RouteReflectors || a.reflector || b.reflector
}

// checkReflectors reports reflectors that are missing or cannot speak.
func checkReflectors(s topology.Snapshot) error {
	if s.Network.BGP.Topology != topology.RouteReflectors {
		return nil
	}
	if len(s.Network.BGP.RouteReflectors) == 0 {
		return fmt.Errorf("%s: topology %s names no route reflector", s.Network.Mode, topology.RouteReflectors)
	}
	var errs []error
	all := members(s)
	for _, name := range s.Network.BGP.RouteReflectors {
		if !slices.ContainsFunc(all, func(m member) bool { return m.name == name }) {
			errs = append(errs, fmt.Errorf("%s: route reflector %s is no node with pods and no router", s.Network.Mode, name))
		}
	}
	return errors.Join(errs...)
}
