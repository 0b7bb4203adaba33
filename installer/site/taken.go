package site

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"slipway/installer/cluster"
	"slipway/topology"
)

// Taken are the addresses at which hosts have programs that listen and are not the
// cluster's own: "tcp/0.0.0.0:22". Addresses that a lab's nodes do not have are
// left out.
func Taken(p *Planned) map[string][]string {
	out := map[string][]string{}
	for _, n := range p.Inputs.Snapshot.Nodes {
		f := p.Facts[n.Name]
		own := ownPorts(p, n)
		for _, s := range f.Listening {
			at := s.Address
			switch {
			case len(f.Own) > 0 && slices.Contains(own, s.Port): // installed before
				continue
			case at.IsValid() && !at.IsUnspecified() && !at.IsLoopback() && at != n.Interface.Prefix.Addr():
				continue
			}
			host := ""
			if at.IsValid() && !at.IsUnspecified() {
				host = at.String()
			}
			what := fmt.Sprintf("%s/%s", s.Protocol, net.JoinHostPort(host, strconv.Itoa(s.Port)))
			if !slices.Contains(out[n.Name], what) && !slices.Contains(out[n.Name], fmt.Sprintf("%s/:%d", s.Protocol, s.Port)) {
				out[n.Name] = append(out[n.Name], what)
			}
		}
		out[n.Name] = withoutCovered(out[n.Name])
	}
	return out
}

// withoutCovered leaves out addresses of ports that are taken at all addresses.
func withoutCovered(all []string) (out []string) {
	for _, a := range all {
		protocol, port := a[:3], a[strings.LastIndexByte(a, ':'):]
		everywhere := protocol + "/" + port
		if a == everywhere || !slices.Contains(all, everywhere) {
			out = append(out, a)
		}
	}
	return out
}

// ownPorts are those that the cluster's programs listen at.
func ownPorts(p *Planned, n topology.NodeState) (out []int) {
	for _, l := range cluster.Listeners(p.Inputs, n) {
		out = append(out, l.Ports...)
	}
	net := p.Inputs.Snapshot.Network
	return append(out, net.VXLAN.Port, net.UDP.Port, 179)
}
