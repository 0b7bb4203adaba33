// Package plantest has what tests of the datapath planners share: snapshots
// written by hand, and golden files.
package plantest

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Golden compares got with testdata/NAME.golden of the calling package.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// ThreeNodes is one segment with a control-plane node, two workers with three
// pods, and a load balancer that takes no part in the datapath.
func ThreeNodes(mode topology.ModeName) topology.Snapshot {
	s := base("three", mode)
	s.Segments = []topology.Segment{segment("rack1", "192.168.233.0/24")}
	s.Nodes = []topology.NodeState{
		node(0, "master01", "rack1", "192.168.233.10/24", topology.RoleControlPlane),
		node(1, "node01", "rack1", "192.168.233.30/24", topology.RoleWorker),
		node(2, "node02", "rack1", "192.168.233.40/24", topology.RoleWorker),
		balancer("lb01", "rack1", "192.168.233.50/24"),
	}
	s.Pods = []topology.Pod{pod(s, "client", 1, 2), pod(s, "web-0", 2, 2), pod(s, "web-1", 2, 3)}
	return s
}

// TwoRacks is two segments joined by a router, with two nodes in the first
// rack and one in the second.
func TwoRacks(mode topology.ModeName) topology.Snapshot {
	s := base("racks", mode)
	s.Segments = []topology.Segment{segment("rack1", "172.16.1.0/24"), segment("rack2", "172.16.2.0/24")}
	s.Routers = []topology.RouterState{{Name: "r1", Interfaces: []topology.Interface{
		iface("eth0", "rack1", "172.16.1.1/24", 0xf1), iface("eth1", "rack2", "172.16.2.1/24", 0xf2),
	}}}
	s.Nodes = []topology.NodeState{
		node(0, "a1", "rack1", "172.16.1.10/24", topology.RoleControlPlane, topology.RoleWorker),
		node(1, "a2", "rack1", "172.16.1.11/24", topology.RoleWorker),
		node(2, "b1", "rack2", "172.16.2.10/24", topology.RoleWorker),
	}
	route := func(dst, via string) []topology.UnderlayRoute {
		return []topology.UnderlayRoute{{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(via), Dev: "eth0"}}
	}
	s.Nodes[0].Routes = route("172.16.2.0/24", "172.16.1.1")
	s.Nodes[1].Routes = route("172.16.2.0/24", "172.16.1.1")
	s.Nodes[2].Routes = route("172.16.1.0/24", "172.16.2.1")
	s.Pods = []topology.Pod{pod(s, "client", 0, 2), pod(s, "web-0", 2, 2)}
	return s
}

func base(lab string, mode topology.ModeName) topology.Snapshot {
	return topology.Snapshot{
		Lab: lab,
		Network: topology.Network{
			Mode: mode, PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
			NodePrefixLength: 24, MTU: topology.MTU(1500 - mode.Overhead()),
			VXLAN: topology.VXLAN{VNI: 1, Port: 8472},
			UDP:   topology.UDP{Port: 8285, Implementation: topology.UDPBatched},
			BGP:   topology.BGP{ASN: 64512, Topology: topology.FullMesh},
			IPIP:  topology.IPIP{Policy: topology.IPIPAlways, Implementation: topology.IPIPeBPF},
		},
	}
}

func segment(name, subnet string) topology.Segment {
	return topology.Segment{Name: name, Subnet: netip.MustParsePrefix(subnet), MTU: 1500}
}

func iface(name, segment, prefix string, n int) topology.Interface {
	return topology.Interface{Name: name, Segment: segment, Prefix: netip.MustParsePrefix(prefix), MAC: fmt.Sprintf("02:00:00:00:00:%02x", n)}
}

// node number i owns 10.244.i.0/24 in the flannel modes and 10.244.(100+i).0/26
// in the calico ones.
func node(i int, name, seg, prefix string, roles ...topology.Role) topology.NodeState {
	p := netip.MustParsePrefix(prefix)
	block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(100 + i), 0}), 26)
	return topology.NodeState{
		Node:          topology.Node{Name: name, Roles: roles, Segment: seg, Address: p.Addr()},
		Interface:     iface("eth0", seg, prefix, i+1),
		PodCIDR:       netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24),
		Blocks:        []netip.Prefix{block},
		TunnelAddress: block.Addr(),
		VTEPMAC:       fmt.Sprintf("0e:00:00:00:00:%02x", i+1),
	}
}

func balancer(name, seg, prefix string) topology.NodeState {
	p := netip.MustParsePrefix(prefix)
	return topology.NodeState{
		Node:      topology.Node{Name: name, Roles: []topology.Role{topology.RoleLoadBalancer}, Segment: seg, Address: p.Addr()},
		Interface: iface("eth0", seg, prefix, 0xfb),
	}
}

// pod is given address number n of its node's range.
func pod(s topology.Snapshot, name string, node, n int) topology.Pod {
	from := s.Nodes[node].PodCIDR
	if s.Network.Mode.IsCalico() {
		from = s.Nodes[node].Blocks[0]
	}
	a := from.Addr().As4()
	a[3] += byte(n)
	return topology.Pod{
		Namespace: "default", Name: name, Node: s.Nodes[node].Name, Address: netip.AddrFrom4(a),
		MAC: fmt.Sprintf("0a:58:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3]), Kind: topology.PodEcho,
	}
}
