package trace_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/trace"
	"slipway/internal/plantest"
	"slipway/topology"
)

// handNet is a network of states written by hand; namespaces have their
// places' labels as names.
type handNet struct {
	states map[string]*datapath.NetState
	places map[string]trace.Place
	wires  map[string][2]string // "namespace/device" to the other end
	reads  map[string]int
}

func (n *handNet) Place(ns string) trace.Place { return n.places[ns] }

func (n *handNet) State(ns string) (*datapath.NetState, error) {
	n.reads[ns]++
	if st := n.states[ns]; st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("no namespace %s", ns)
}

func (n *handNet) Peer(ns, device string) (peerNS, peerDevice string, err error) {
	if end, ok := n.wires[ns+" "+device]; ok {
		return end[0], end[1], nil
	}
	return "", "", trace.ErrNoPeer
}

func (n *handNet) wire(ns, device, farNS, farDevice string) {
	n.wires[ns+" "+device] = [2]string{farNS, farDevice}
	n.wires[farNS+" "+farDevice] = [2]string{ns, device}
}

// handCluster is three nodes on one segment in flannel-vxlan with a pod on
// node01 and two on node02, which are the endpoints of a service.
func handCluster(t *testing.T) (*handNet, *topology.Snapshot) {
	t.Helper()
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	var ends []topology.Endpoint
	for _, p := range s.Pods[1:] {
		ends = append(ends, topology.Endpoint{Address: p.Address, Port: 80, Node: p.Node, Pod: p.Key(), Ready: true, Serving: true})
	}
	s.Services = []topology.Service{{
		Namespace: "default", Name: "web", Type: topology.ClusterIP, ClusterIP: netip.MustParseAddr("10.96.0.20"),
		Ports: []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: 8080, TargetPort: "80", Endpoints: ends}},
	}}
	n := &handNet{states: map[string]*datapath.NetState{}, places: map[string]trace.Place{}, wires: map[string][2]string{}, reads: map[string]int{}}
	n.places["fabric"] = trace.Place{Label: "fabric", Namespace: "fabric", Wire: true}
	fabric := &datapath.NetState{Namespace: "fabric", Devices: []datapath.Device{{Name: "br-rack1", Kind: "bridge", Up: true, Carrier: true}}}
	for i, m := range s.Nodes {
		port := "p-" + m.Name
		n.places[m.Name] = trace.Place{Label: m.Name, Node: m.Name, Namespace: m.Name}
		n.states[m.Name] = handNode(t, s, m)
		n.wire(m.Name, "eth0", "fabric", port)
		fabric.Devices = append(fabric.Devices, datapath.Device{
			Name: port, Index: i + 2, Kind: "veth", Up: true, Carrier: true, Master: "br-rack1",
			Port: &datapath.BridgePort{State: "forwarding", Learning: true, Flood: true},
		})
		fabric.FDB = append(fabric.FDB, datapath.FDBState{Dev: port, MAC: m.Interface.MAC, Master: "br-rack1"})
	}
	n.states["fabric"] = fabric
	for _, p := range s.Pods {
		n.places[p.Key()] = trace.Place{Label: p.Key(), Node: p.Node, Namespace: p.Key(), Pod: true}
		n.states[p.Key()] = &datapath.NetState{Namespace: p.Key(), Devices: []datapath.Device{{
			Name: "eth0", Kind: "veth", Up: true, Carrier: true, Addresses: []netip.Prefix{netip.PrefixFrom(p.Address, 24)},
		}}}
		n.wire(p.Key(), "eth0", p.Node, "veth-"+p.Name)
	}
	return n, &s
}

// handNode is a node as the plan has it, as far as edits look at it.
func handNode(t *testing.T, s topology.Snapshot, m topology.NodeState) *datapath.NetState {
	t.Helper()
	st := &datapath.NetState{
		Namespace: m.Name,
		Devices: []datapath.Device{
			{Name: "eth0", Kind: "veth", MTU: 1500, Up: true, Carrier: true, Conf: datapath.DeviceConf{Forwarding: 1}, Addresses: []netip.Prefix{m.Interface.Prefix}},
			{Name: "cni0", Kind: "bridge", MTU: 1450, Up: true, Carrier: true, Conf: datapath.DeviceConf{Forwarding: 1}},
			{Name: "flannel.1", Kind: "vxlan", MTU: 1450, Up: true, Carrier: true, Conf: datapath.DeviceConf{Forwarding: 1}},
		},
		All:     datapath.DeviceConf{Forwarding: 1},
		Default: datapath.DeviceConf{Forwarding: 1},
		Sysctls: map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/ip_default_ttl": "64"},
		Routes: []datapath.FIBRoute{
			{Table: 255, Dst: netip.PrefixFrom(m.Address, 32), Type: "local", Dev: "eth0", Text: "local " + m.Address.String() + " dev eth0"},
			{Table: 254, Dst: m.Interface.Prefix.Masked(), Type: "unicast", Dev: "eth0", Text: m.Interface.Prefix.Masked().String() + " dev eth0"},
		},
		RuleSave: map[string]string{},
	}
	for _, p := range s.PodsOn(m.Name) {
		st.Devices = append(st.Devices, datapath.Device{
			Name: "veth-" + p.Name, Kind: "veth", Up: true, Carrier: true, Master: "cni0", Port: &datapath.BridgePort{State: "forwarding"},
		})
		st.Neighbors = append(st.Neighbors, datapath.NeighborState{Dev: "cni0", Address: p.Address, MAC: p.MAC, State: "reachable"})
		st.FDB = append(st.FDB, datapath.FDBState{Dev: "veth-" + p.Name, MAC: p.MAC, Master: "cni0"})
	}
	for _, o := range s.Nodes {
		if o.Name == m.Name || !o.InDatapath() {
			continue
		}
		via := o.PodCIDR.Addr()
		st.Routes = append(st.Routes, datapath.FIBRoute{
			Table: 254, Dst: o.PodCIDR, Type: "unicast", Via: via, Dev: "flannel.1", Onlink: true, Text: o.PodCIDR.String() + " via " + via.String() + " dev flannel.1 onlink",
		})
		st.Neighbors = append(st.Neighbors, datapath.NeighborState{Dev: "flannel.1", Address: via, MAC: o.VTEPMAC, State: "permanent"})
		st.FDB = append(st.FDB, datapath.FDBState{Dev: "flannel.1", MAC: o.VTEPMAC, Dst: o.Address})
	}
	if !m.InDatapath() {
		return st
	}
	set, err := kubeproxy.Plan(s, m.Name, kubeproxy.DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range set.Tables {
		st.RuleSave[table.Name] = saved(table)
	}
	return st
}

// saved prints a table as `iptables-save -c` does.
func saved(t datapath.RuleTable) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Generated by iptables-save\n*%s\n", t.Name)
	builtin := map[string][]string{
		"nat": {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}, "filter": {"INPUT", "FORWARD", "OUTPUT"},
		"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	}
	for _, c := range builtin[t.Name] {
		fmt.Fprintf(&b, ":%s ACCEPT [7:420]\n", c)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for _, j := range t.Jumps {
		fmt.Fprintf(&b, "[7:420] %s\n", j.Rule)
	}
	for _, r := range t.Rules {
		fmt.Fprintf(&b, "[3:180] %s\n", r)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// edited makes edits that must be good.
func edited(t *testing.T, n trace.Network, s *topology.Snapshot, text ...string) trace.Network {
	t.Helper()
	edits, err := trace.ParseEdits(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := trace.Edited(n, s, edits)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// stateOf reads a namespace that must be readable.
func stateOf(t *testing.T, n trace.Network, ns string) *datapath.NetState {
	t.Helper()
	st, err := n.State(ns)
	if err != nil {
		t.Fatal(err)
	}
	return st
}
