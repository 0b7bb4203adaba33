package datapath

import (
	"fmt"
	"strings"

	"slipway/topology"
)

// String shows the whole configuration as a script: the node's name, the
// processes that serve it as comments, and its [NodeConfig.Commands].
func (c NodeConfig) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# node %s\n", c.Node)
	for _, line := range c.Commands() {
		b.WriteString(line + "\n")
	}
	for _, line := range c.processes() {
		b.WriteString("# " + line + "\n")
	}
	return b.String()
}

// processes describes what has to run beside the kernel state.
func (c NodeConfig) processes() []string {
	var out []string
	if c.UDPTunnel != nil {
		out = append(out, c.UDPTunnel.lines()...)
	}
	if c.IPIP != nil {
		out = append(out, c.IPIP.String())
	}
	if c.BGP != nil {
		out = append(out, c.BGP.lines()...)
	}
	return out
}

func (t UDPTunnel) lines() []string {
	dev := ""
	if t.Implementation == topology.UDPeBPF { // a process leaves the device to the routes
		dev = " dev " + t.Underlay
	}
	out := []string{fmt.Sprintf("udp tunnel %s mtu %d local %s%s network %s (%s)", t.Device, t.MTU, t.Local, dev, t.Network, t.Implementation)}
	for _, l := range t.Leases {
		out = append(out, fmt.Sprintf("  lease %s at %s", l.Subnet, l.Remote))
	}
	return out
}

// String describes the tunnel in one line.
func (t IPIPTunnel) String() string {
	return fmt.Sprintf("ipip tunnel %s mtu %d address %s local %s dev %s (%s)", t.Device, t.MTU, t.Address, t.Local, t.Underlay, t.Implementation)
}

func (s Speaker) lines() []string {
	var w words
	w.add(fmt.Sprintf("bgp as %d router-id %s listen %s", s.ASN, s.RouterID, s.Listen))
	w.addIf(s.ClusterID.IsValid(), "cluster-id", s.ClusterID.String())
	out := []string{w.String()}
	for _, p := range s.Announce {
		out = append(out, fmt.Sprintf("  announce %s", p))
	}
	if s.Accept.IsValid() {
		out = append(out, fmt.Sprintf("  accept %s", s.Accept))
	}
	if t := s.Tunnel; t != nil {
		out = append(out, fmt.Sprintf("  tunnel %s policy %s local %s", t.Device, t.Policy, t.LocalSubnet))
	}
	for _, p := range s.Peers {
		out = append(out, "  "+p.String())
	}
	return out
}

// String describes the peer in one line.
func (p Peer) String() string {
	var w words
	w.add(fmt.Sprintf("peer %s %s as %d", p.Name, p.Address, p.ASN))
	w.addIf(p.ReflectorClient, "reflector-client")
	w.addIf(p.Passive, "passive")
	return w.String()
}
