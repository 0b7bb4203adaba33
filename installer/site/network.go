package site

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"slipway/datapath/modes"
	"slipway/installer"
	"slipway/internal/ordered"
	"slipway/topology"
)

// network compares the routes between nodes' pods and the rules of services with
// what the mode plans. Addresses and devices of single pods come and go; they are
// nobody's drift.
func network(ctx context.Context, hosts map[string]installer.Host, p *Planned) ([]Finding, error) {
	in := p.Inputs
	mode, err := modes.ByName(in.Snapshot.Network.Mode)
	if err != nil {
		return nil, err
	}
	wanted := map[string][]string{}
	for _, n := range in.Snapshot.Nodes {
		if !n.InDatapath() {
			continue
		}
		c, err := mode.Plan(*in.Snapshot, n.Name)
		if err != nil {
			return nil, fmt.Errorf("plan the network of %s: %w", n.Name, err)
		}
		wanted[n.Name] = []string{}
		for _, r := range c.Routes {
			if elsewhere(in.Snapshot, n, r.Dst) {
				way := fmt.Sprintf("%s dev %s", r.Dst, r.Dev)
				if r.Via.IsValid() {
					way = fmt.Sprintf("%s via %s", r.Dst, r.Via)
				}
				wanted[n.Name] = append(wanted[n.Name], way)
			}
		}
	}
	found := map[string][]Finding{}
	var mu sync.Mutex
	err = installer.Each(ordered.Keys(wanted), func(name string) error {
		f, err := look(ctx, hosts[name], wanted[name], in.Snapshot)
		mu.Lock()
		defer mu.Unlock()
		found[name] = f
		return err
	})
	var out []Finding
	for _, name := range ordered.Keys(found) {
		out = append(out, found[name]...)
	}
	return out, err
}

// elsewhere reports whether a route leads to another node's pods.
func elsewhere(s *topology.Snapshot, n topology.NodeState, dst netip.Prefix) bool {
	if !s.Network.PodCIDR.Overlaps(dst) || dst == n.PodCIDR || dst.Bits() == 32 {
		return false
	}
	for _, b := range n.Blocks {
		if b.Overlaps(dst) {
			return false
		}
	}
	return true
}

// rulesScript prints whether kube-proxy's rules are there.
var rulesScript = map[topology.ProxyMode]string{
	topology.ProxyIPTables: "iptables -w -n -L KUBE-SERVICES -t nat >/dev/null 2>&1 && echo rules",
	topology.ProxyNFTables: "nft list table ip kube-proxy >/dev/null 2>&1 && echo rules",
}

// look asks one host for its routes and rules.
func look(ctx context.Context, h installer.Host, routes []string, s *topology.Snapshot) ([]Finding, error) {
	script := fmt.Sprintf("ip -4 route show table main\n%s || true\n", rulesScript[s.Proxy.Mode])
	r, err := h.Run(ctx, installer.Command{Argv: []string{"sh", "-s"}, Stdin: []byte(script)})
	if err != nil {
		return nil, err
	}
	var out []Finding
	lines := strings.Split(string(r.Stdout), "\n")
	for _, want := range routes {
		there := false
		for _, l := range lines {
			there = there || strings.HasPrefix(l+" ", want+" ")
		}
		if !there {
			out = append(out, Finding{Host: h.Name(), What: "route " + want, State: "missing"})
		}
	}
	if !strings.Contains(string(r.Stdout), "\nrules\n") && !strings.HasPrefix(string(r.Stdout), "rules\n") {
		out = append(out, Finding{Host: h.Name(), What: fmt.Sprintf("kube-proxy's rules (%s)", s.Proxy.Mode), State: "missing"})
	}
	return out, nil
}
