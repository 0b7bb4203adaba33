package lab

import (
	"context"
	"net/netip"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/topology"
)

// NodeRoute is one route as a node's kernel has it.
type NodeRoute struct {
	Node  string         `json:"node"`
	Route datapath.Route `json:"route"`
	Text  string         `json:"text"` // as `ip route` writes it
}

// Routes reads the main routing table of every node and router.
func Routes(ctx context.Context, st *State) (out []NodeRoute, err error) {
	var names []string
	for _, n := range st.Snapshot.Nodes {
		names = append(names, n.Name)
	}
	for _, r := range st.Snapshot.Routers {
		names = append(names, r.Name)
	}
	for _, n := range names {
		routes, err := routesOf(ctx, st.Lab, n)
		if err != nil {
			return nil, err
		}
		out = append(out, routes...)
	}
	return out, nil
}

func routesOf(ctx context.Context, lab, node string) ([]NodeRoute, error) {
	ns, err := netns.Open(NSOfMachine(lab, node))
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	h, err := linux.Open(ns, linux.Options{SkipRules: true})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	st, err := h.Read(ctx)
	if err != nil {
		return nil, err
	}
	var out []NodeRoute
	for _, r := range st.Routes {
		out = append(out, NodeRoute{Node: node, Route: r, Text: r.String()})
	}
	return out, nil
}

// LeaseLine is a node's share of the pod network: a flannel lease or a calico block.
type LeaseLine struct {
	Node     string       `json:"node"`
	Subnet   netip.Prefix `json:"subnet"`
	PublicIP netip.Addr   `json:"publicIP"`
	Backend  string       `json:"backend"`
	VTEPMAC  string       `json:"vtepMAC,omitempty"`
}

// Leases lists who has which part of the pod network.
func Leases(s *topology.Snapshot) []LeaseLine {
	out := []LeaseLine{}
	for _, n := range s.Nodes {
		l := LeaseLine{Node: n.Name, PublicIP: n.Address, Backend: string(s.Network.Mode)}
		if n.PodCIDR.IsValid() {
			l.Subnet = n.PodCIDR
			if s.Network.Mode == topology.FlannelVXLAN {
				l.VTEPMAC = n.VTEPMAC
			}
			out = append(out, l)
		}
		for _, b := range n.Blocks {
			l.Subnet = b
			out = append(out, l)
		}
	}
	return out
}
