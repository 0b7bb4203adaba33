package remote

import (
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/hostview"
	"slipway/datapath/trace"
	"slipway/lab"
	"slipway/topology"
)

const mac1, mac2, routerMAC = "02:aa:00:00:00:01", "02:aa:00:00:00:02", "02:aa:00:00:00:fe"

// host is a machine with one device, that knows by ARP who has which address.
func host(address, mac string, routes []datapath.FIBRoute, arp map[string]string) *Seen {
	p := netip.MustParsePrefix(address)
	st := &datapath.NetState{
		Inode: 1,
		Devices: []datapath.Device{
			{Name: "lo", Index: 1, Kind: "loopback", MTU: 65536, Up: true, Carrier: true, PeerNSID: -1},
			{Name: "ens3", Index: 2, Kind: "device", MTU: 1500, MAC: mac, Up: true, Carrier: true, PeerNSID: -1, Addresses: []netip.Prefix{p}},
		},
		Policy: []datapath.PolicyRule{
			{Priority: 0, Action: "lookup", Table: 255}, {Priority: 32766, Action: "lookup", Table: 254},
		},
		Routes: append([]datapath.FIBRoute{
			{Table: 255, Dst: netip.PrefixFrom(p.Addr(), 32), Type: "local", Dev: "ens3", Src: p.Addr(), Scope: "host"},
			{Table: 254, Dst: p.Masked(), Type: "unicast", Dev: "ens3", Src: p.Addr(), Scope: "link"},
		}, routes...),
	}
	for a, m := range arp {
		st.Neighbors = append(st.Neighbors, datapath.NeighborState{Dev: "ens3", Address: netip.MustParseAddr(a), MAC: m, State: "reachable"})
	}
	return &Seen{Host: hostview.Host{Root: 1, Spaces: map[uint64]*hostview.Space{1: {State: st}}}}
}

// cluster is two nodes by name; where they are is what was seen.
func cluster() *lab.State {
	return &lab.State{Lab: "site", Snapshot: &topology.Snapshot{Lab: "site", Nodes: []topology.NodeState{
		{Node: topology.Node{Name: "a", Roles: []topology.Role{topology.RoleLoadBalancer}}}, {Node: topology.Node{Name: "b", Roles: []topology.Role{topology.RoleLoadBalancer}}},
	}}}
}

func ping(t *testing.T, seen map[string]*Seen, to string) trace.Branch {
	t.Helper()
	n, err := Network(cluster(), seen)
	if err != nil {
		t.Fatal(err)
	}
	p := trace.Predict(n, lab.NSOfMachine("site", "a"), datapath.Packet{Dst: netip.MustParseAddr(to), Proto: "icmp", TTL: 64, Length: 84, ICMP: &datapath.ICMPInfo{Type: 8}}, trace.Options{})
	if len(p.Branches) != 1 {
		t.Fatalf("%d branches: %+v", len(p.Branches), p)
	}
	return p.Branches[0]
}

func TestHostsOnOneWire(t *testing.T) {
	b := ping(t, map[string]*Seen{
		"a": host("192.0.2.1/24", mac1, nil, map[string]string{"192.0.2.2": mac2}),
		"b": host("192.0.2.2/24", mac2, nil, map[string]string{"192.0.2.1": mac1}),
	}, "192.0.2.2")
	if b.Verdict != trace.Delivered || len(b.Reply) == 0 {
		t.Errorf("%s: %+v", b.Verdict, b.Cause)
	}
}

// What lies behind a router was not looked at: neither delivered nor dropped.
func TestBehindARouter(t *testing.T) {
	gateway := netip.MustParseAddr("192.0.2.254")
	b := ping(t, map[string]*Seen{
		"a": host("192.0.2.1/24", mac1, []datapath.FIBRoute{{Table: 254, Dst: netip.MustParsePrefix("0.0.0.0/0"), Type: "unicast", Via: gateway, Dev: "ens3"}}, map[string]string{gateway.String(): routerMAC}),
		"b": host("198.51.100.2/24", mac2, nil, nil),
	}, "198.51.100.2")
	if b.Verdict != trace.Unknown || b.Cause == nil || !strings.Contains(b.Cause.Text, "not known") {
		t.Errorf("%s: %+v", b.Verdict, b.Cause)
	}
}

// A host that did not answer is no place where packets are lost.
func TestHostThatWasNotSeen(t *testing.T) {
	b := ping(t, map[string]*Seen{"a": host("192.0.2.1/24", mac1, nil, map[string]string{"192.0.2.2": mac2})}, "192.0.2.2")
	if b.Verdict != trace.Unknown {
		t.Errorf("%s: %+v", b.Verdict, b.Cause)
	}
}
