package flannel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/internal/plantest"
	"slipway/topology"
)

func planAll(t *testing.T, m datapath.Mode, s topology.Snapshot) string {
	t.Helper()
	if err := m.Check(s); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range s.Nodes {
		cfg, err := m.Plan(s, n.Name)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(cfg.String() + "\n")
	}
	for _, r := range s.Routers {
		cfg, err := m.PlanRouter(s, r.Name)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(cfg.String() + "\n")
	}
	return b.String()
}

func TestPlans(t *testing.T) {
	for _, m := range Modes() {
		name := strings.TrimPrefix(string(m.Name()), "flannel-")
		t.Run(name, func(t *testing.T) {
			plantest.Golden(t, name+"-3node", planAll(t, m, plantest.ThreeNodes(m.Name())))
			if m.Name() != topology.FlannelHostGW {
				plantest.Golden(t, name+"-2rack", planAll(t, m, plantest.TwoRacks(m.Name())))
			}
		})
	}
}

func TestDirectRouting(t *testing.T) {
	s := plantest.TwoRacks(topology.FlannelVXLAN)
	s.Network.VXLAN.DirectRouting = true
	plantest.Golden(t, "vxlan-direct-2rack", planAll(t, vxlan{}, s))
}

func TestUDPByPrograms(t *testing.T) {
	s := plantest.ThreeNodes(topology.FlannelUDP)
	s.Network.UDP.Implementation = topology.UDPeBPF
	plantest.Golden(t, "udp-ebpf-3node", planAll(t, udp{}, s))
}

func TestHostGWNeedsOneSegment(t *testing.T) {
	s := plantest.TwoRacks(topology.FlannelHostGW)
	err := hostGW{}.Check(s)
	if err == nil || !strings.Contains(err.Error(), "node b1 is in segment rack2 and not in rack1") {
		t.Errorf("Check across a router: %v", err)
	}
	if _, err := (hostGW{}).Plan(s, "a1"); err == nil {
		t.Error("Plan across a router succeeded")
	}
}

func TestCheckNamesEveryReason(t *testing.T) {
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Network.MTU = 1451
	s.Nodes[1].VTEPMAC = ""
	err := vxlan{}.Check(s)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"pod MTU 1451 and 50 bytes of encapsulation do not fit segment rack1's MTU 1500 (node node02)", "node node01 has no VTEP MAC"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// A machine that only balances neither gets pod networking nor appears in it.
func TestLoadBalancersTakeNoPart(t *testing.T) {
	for _, m := range Modes() {
		with := plantest.ThreeNodes(m.Name())
		without := with
		without.Nodes = with.Nodes[:3]
		a, err := m.Plan(with, "node01")
		if err != nil {
			t.Fatal(err)
		}
		b, err := m.Plan(without, "node01")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a.String(), b.String()); diff != "" {
			t.Errorf("%s: a load balancer changes its neighbours' plan:\n%s", m.Name(), diff)
		}
		lb, err := m.Plan(with, "lb01")
		if err != nil {
			t.Fatal(err)
		}
		if c := lb.Commands(); len(c) != 0 {
			t.Errorf("%s: a load balancer is given %q", m.Name(), c)
		}
	}
}

func TestUnknownNode(t *testing.T) {
	for _, m := range Modes() {
		s := plantest.ThreeNodes(m.Name())
		if _, err := m.Plan(s, "nobody"); err == nil {
			t.Errorf("%s planned an unknown node", m.Name())
		}
		if _, err := m.PlanRouter(s, "nobody"); err == nil {
			t.Errorf("%s planned an unknown router", m.Name())
		}
	}
}
