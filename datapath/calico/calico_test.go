package calico

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/internal/plantest"
	"slipway/topology"
)

// plans computes every machine's plan, nodes first.
func plans(t *testing.T, m datapath.Mode, s topology.Snapshot) []datapath.NodeConfig {
	t.Helper()
	if err := m.Check(s); err != nil {
		t.Fatal(err)
	}
	var out []datapath.NodeConfig
	for _, n := range s.Nodes {
		cfg, err := m.Plan(s, n.Name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cfg)
	}
	for _, r := range s.Routers {
		cfg, err := m.PlanRouter(s, r.Name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cfg)
	}
	return out
}

func text(cfgs []datapath.NodeConfig) string {
	var b strings.Builder
	for _, c := range cfgs {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

func crossSubnet(s topology.Snapshot) topology.Snapshot {
	s.Network.IPIP.Policy = topology.IPIPCrossSubnet
	return s
}

func reflected(s topology.Snapshot, by ...string) topology.Snapshot {
	s.Network.BGP.Topology = topology.RouteReflectors
	s.Network.BGP.RouteReflectors = by
	return s
}

// cases are the shapes of BGP topology that the goldens show.
func cases() map[string]struct {
	mode datapath.Mode
	s    topology.Snapshot
} {
	type c = struct {
		mode datapath.Mode
		s    topology.Snapshot
	}
	return map[string]c{
		"bgp-3node":               {bgp{}, plantest.ThreeNodes(topology.CalicoBGP)},
		"bgp-2rack":               {bgp{}, plantest.TwoRacks(topology.CalicoBGP)},
		"bgp-reflectors-3node":    {bgp{}, reflected(plantest.ThreeNodes(topology.CalicoBGP), "master01", "node01")},
		"bgp-reflectors-2rack":    {bgp{}, reflected(plantest.TwoRacks(topology.CalicoBGP), "r1")},
		"ipip-3node":              {ipip{}, plantest.ThreeNodes(topology.CalicoIPIP)},
		"ipip-2rack":              {ipip{}, plantest.TwoRacks(topology.CalicoIPIP)},
		"ipip-cross-subnet-2rack": {ipip{}, crossSubnet(plantest.TwoRacks(topology.CalicoIPIP))},
		"ipip-reflectors-2rack":   {ipip{}, reflected(plantest.TwoRacks(topology.CalicoIPIP), "r1")},
	}
}

func TestPlans(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) { plantest.Golden(t, name, text(plans(t, c.mode, c.s))) })
	}
}

// Each session must be known to both ends, under addresses that the other end
// has, and opened by exactly one of them.
func TestSessionsMatch(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			addresses := map[string]map[string]bool{}
			for _, n := range c.s.Nodes {
				addresses[n.Name] = map[string]bool{n.Interface.Prefix.Addr().String(): true}
			}
			for _, r := range c.s.Routers {
				addresses[r.Name] = map[string]bool{}
				for _, i := range r.Interfaces {
					addresses[r.Name][i.Prefix.Addr().String()] = true
				}
			}
			peers := map[[2]string]datapath.Peer{}
			for _, cfg := range plans(t, c.mode, c.s) {
				if cfg.BGP == nil {
					continue
				}
				for _, p := range cfg.BGP.Peers {
					peers[[2]string{cfg.Node, p.Name}] = p
					if !addresses[p.Name][p.Address.String()] {
						t.Errorf("%s knows %s as %s, which is not its address", cfg.Node, p.Name, p.Address)
					}
				}
			}
			if len(peers) == 0 {
				t.Fatal("no sessions")
			}
			for k, p := range peers {
				back, ok := peers[[2]string{k[1], k[0]}]
				if !ok {
					t.Errorf("%s peers with %s, which does not know of it", k[0], k[1])
				}
				if ok && back.Passive == p.Passive {
					t.Errorf("%s and %s: passive is %v on both sides", k[0], k[1], p.Passive)
				}
				if p.ReflectorClient && back.ReflectorClient {
					t.Errorf("%s and %s reflect for each other", k[0], k[1])
				}
			}
		})
	}
}

// Speakers outside the cluster peer with everybody, or with the reflectors
// alone, which reflect for them unless they are of another AS.
func TestExternalPeers(t *testing.T) {
	peers := []topology.BGPPeer{{Address: netip.MustParseAddr("192.168.233.250"), ASN: 64512}, {Address: netip.MustParseAddr("192.168.233.251"), ASN: 64999}}
	for name, c := range map[string]struct {
		s    topology.Snapshot
		want map[string][]datapath.Peer
	}{
		"full mesh": {plantest.ThreeNodes(topology.CalicoBGP), map[string][]datapath.Peer{
			"master01": external(peers, false), "node01": external(peers, false), "node02": external(peers, false),
		}},
		"reflectors": {reflected(plantest.ThreeNodes(topology.CalicoBGP), "node01"), map[string][]datapath.Peer{
			"node01": external(peers, true),
		}},
	} {
		c.s.Network.BGP.ASN, c.s.Network.BGP.Peers = 64512, peers
		got := map[string][]datapath.Peer{}
		for _, cfg := range plans(t, bgp{}, c.s) {
			if cfg.BGP == nil {
				continue
			}
			for _, p := range cfg.BGP.Peers {
				if p.External {
					got[cfg.Node] = append(got[cfg.Node], p)
				}
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: external peers\n%+v, want\n%+v", name, got, c.want)
		}
	}
}

// external is how a speaker of AS 64512 knows the peers.
func external(peers []topology.BGPPeer, reflects bool) []datapath.Peer {
	var out []datapath.Peer
	for _, p := range peers {
		out = append(out, datapath.Peer{
			Name: p.Address.String(), Address: p.Address, ASN: p.ASN, Passive: true, External: true,
			ReflectorClient: reflects && p.ASN == 64512,
		})
	}
	return out
}

// A router between racks must carry pods' packets only where they come bare.
func TestRouterKnowsPodsOnlyInBGPMode(t *testing.T) {
	r, err := bgp{}.PlanRouter(plantest.TwoRacks(topology.CalicoBGP), "r1")
	if err != nil || r.BGP == nil || !r.BGP.Accept.IsValid() || len(r.BGP.Announce) != 0 {
		t.Errorf("calico-bgp router: %v, %v", r, err)
	}
	r, err = ipip{}.PlanRouter(crossSubnet(plantest.TwoRacks(topology.CalicoIPIP)), "r1")
	if err != nil || r.BGP != nil {
		t.Errorf("calico-ipip router: %v, %v", r, err)
	}
	r, err = ipip{}.PlanRouter(reflected(plantest.TwoRacks(topology.CalicoIPIP), "r1"), "r1")
	if err != nil || r.BGP == nil || r.BGP.Accept.IsValid() {
		t.Errorf("calico-ipip reflector: %v, %v", r, err)
	}
}

func TestCheck(t *testing.T) {
	noBlock := plantest.ThreeNodes(topology.CalicoIPIP)
	noBlock.Nodes[0].Blocks, noBlock.Nodes[1].TunnelAddress = nil, noBlock.Nodes[3].TunnelAddress
	for _, c := range []struct {
		s    topology.Snapshot
		want []string
	}{
		{noBlock, []string{"node master01 has no address block", "node node01 has no tunnel address"}},
		{reflected(plantest.ThreeNodes(topology.CalicoIPIP)), []string{"names no route reflector"}},
		{reflected(plantest.ThreeNodes(topology.CalicoIPIP), "lb01", "x"), []string{"route reflector lb01 is no node with pods", "route reflector x is"}},
	} {
		err := ipip{}.Check(c.s)
		if err == nil {
			t.Errorf("no error, want %q", c.want)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in: %v", w, err)
			}
		}
	}
}

// The value was computed with sha1sum: printf default.web-0 | sha1sum.
func TestHostIf(t *testing.T) {
	if got := HostIf("default/web-0"); got != "cali0d7763386da" {
		t.Errorf("HostIf = %s", got)
	}
}
