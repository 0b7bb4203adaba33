package topology

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func route(dst, via, dev string) UnderlayRoute {
	return UnderlayRoute{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Dev: dev}
}

// Three segments in a row, and a shortcut that is listed last:
//
//	a --r1-- b --r2-- c --r3-- d
//	a ------------r4---------- d
func TestUnderlayRoutesTakeTheShortestPath(t *testing.T) {
	c := cluster(t, `spec:
  underlay:
    segments:
      - {name: a, subnet: 10.1.0.0/24}
      - {name: b, subnet: 10.2.0.0/24}
      - {name: c, subnet: 10.3.0.0/24}
      - {name: d, subnet: 10.4.0.0/24}
    routers:
      - {name: r1, segments: [a, b]}
      - {name: r2, segments: [b, c]}
      - {name: r3, segments: [c, d]}
      - {name: r4, segments: [a, d]}
  nodes:
    - {name: n1, segment: a}
    - {name: n2, segment: d}
`)
	snap, _ := allocate(t, c, nil, nil)
	// r1 and r4 are both in a: r1 comes first and has .1, r4 the last host.
	// From a to c it is two routers either way: r2 is listed before r3, so the
	// way through b is taken. From d to b, r1 comes before r2: through a. In d,
	// r3 is the first router and r4 the second.
	want := map[string][]UnderlayRoute{
		"n1": {route("10.2.0.0/24", "10.1.0.1", "eth0"), route("10.3.0.0/24", "10.1.0.1", "eth0"), route("10.4.0.0/24", "10.1.0.254", "eth0")},
		"n2": {route("10.1.0.0/24", "10.4.0.254", "eth0"), route("10.2.0.0/24", "10.4.0.254", "eth0"), route("10.3.0.0/24", "10.4.0.1", "eth0")},
		"r1": {route("10.3.0.0/24", "10.2.0.254", "eth1"), route("10.4.0.0/24", "10.1.0.254", "eth0")},
		"r4": {route("10.2.0.0/24", "10.1.0.1", "eth0"), route("10.3.0.0/24", "10.4.0.1", "eth1")},
	}
	got := map[string][]UnderlayRoute{}
	for _, n := range snap.Nodes {
		got[n.Name] = n.Routes
	}
	for _, r := range snap.Routers {
		if _, asked := want[r.Name]; asked {
			got[r.Name] = r.Routes
		}
	}
	if d := cmp.Diff(want, got, addrs); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestRoutersAvoidAddressesOfNodes(t *testing.T) {
	c := cluster(t, `spec:
  underlay:
    segments: [{name: a, subnet: 10.1.0.0/24}, {name: b, subnet: 10.2.0.0/29}]
    routers: [{name: r1, segments: [a, b]}]
  nodes:
    - {name: n1, segment: a, address: 10.1.0.1}
    - {name: n2, segment: a}
    - {name: n3, segment: b}
    - {name: n4, segment: b}
`)
	snap, _ := allocate(t, c, nil, nil)
	got := map[string]string{"r1/a": snap.Routers[0].Interfaces[0].Prefix.String(), "r1/b": snap.Routers[0].Interfaces[1].Prefix.String()}
	for _, n := range snap.Nodes {
		got[n.Name] = n.Interface.Prefix.String()
	}
	want := map[string]string{
		"r1/a": "10.1.0.254/24", "r1/b": "10.2.0.1/29",
		"n1": "10.1.0.1/24", "n2": "10.1.0.10/24",
		"n3": "10.2.0.2/29", "n4": "10.2.0.3/29", // no .10 in a /29
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
