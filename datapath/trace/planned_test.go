package trace_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/trace"
	"slipway/internal/plantest"
	"slipway/topology"
)

// planned is a network whose states are what a mode plans for three nodes on
// one segment: a client and a web pod on node01, two web pods on node02, and a
// service of the web pods. It is healthy; tests break it.
type planned struct {
	handNet
	t    *testing.T
	snap topology.Snapshot
	mode topology.ModeName
}

// The addresses of the service.
var (
	serviceIP   = netip.MustParseAddr("10.96.0.20")
	emptyIP     = netip.MustParseAddr("10.96.0.21")
	servicePort = uint16(8080)
	nodePort    = uint16(30000)
)

func plan(t *testing.T, mode topology.ModeName) *planned {
	t.Helper()
	s := plantest.ThreeNodes(mode)
	local := s.Pods[0]
	local.Name, local.Address, local.MAC = "web-l", local.Address.Next(), "0a:58:00:00:00:77"
	s.Pods = append(s.Pods, local)
	var ends []topology.Endpoint
	for i := range s.Pods {
		p := &s.Pods[i]
		if p.Name == "client" {
			continue
		}
		ends = append(ends, topology.Endpoint{Address: p.Address, Port: 80, Node: p.Node, Pod: p.Key(), Ready: true, Serving: true})
	}
	s.Services = []topology.Service{
		{
			Namespace: "default", Name: "web", Type: topology.NodePort, ClusterIP: serviceIP,
			Ports: []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: int(servicePort), TargetPort: "80", NodePort: int(nodePort), Endpoints: ends}},
		}, {
			Namespace: "default", Name: "empty", Type: topology.ClusterIP, ClusterIP: emptyIP,
			Ports: []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: int(servicePort), TargetPort: "80"}},
		},
	}
	n := &planned{t: t, snap: s, mode: mode, handNet: handNet{states: map[string]*datapath.NetState{}, places: map[string]trace.Place{}, wires: map[string][2]string{}, reads: map[string]int{}}}
	n.fabric()
	for _, m := range s.Nodes {
		n.node(m)
	}
	for _, p := range s.Pods {
		n.pod(p)
	}
	n.external()
	return n
}

func (n *planned) place(label, node string) *datapath.NetState {
	st := &datapath.NetState{
		Namespace: label, RuleSave: map[string]string{},
		Sysctls: map[string]string{"net/ipv4/ip_forward": "0", "net/bridge/bridge-nf-call-iptables": "0"},
	}
	st.Devices = append(st.Devices, datapath.Device{Name: "lo", Index: 1, Kind: "loopback", MTU: 65536, Up: true, Carrier: true})
	n.address(st, "lo", netip.MustParsePrefix("127.0.0.1/8"))
	n.states[label], n.places[label] = st, trace.Place{Label: label, Node: node, Namespace: label}
	return st
}

func (n *planned) device(st *datapath.NetState, d datapath.Device) *datapath.Device {
	d.Index, d.Up, d.Carrier = len(st.Devices)+1, true, true
	st.Devices = append(st.Devices, d)
	return st.Device(d.Name)
}

// address gives a device an address with the routes that the kernel makes of it.
func (n *planned) address(st *datapath.NetState, dev string, p netip.Prefix) {
	d := st.Device(dev)
	d.Addresses = append(d.Addresses, p)
	st.Routes = append(st.Routes, datapath.FIBRoute{Table: 255, Dst: netip.PrefixFrom(p.Addr(), 32), Type: "local", Dev: dev, Src: p.Addr(), Scope: "host", Protocol: datapath.ProtoKernel})
	switch {
	case dev == "lo":
		st.Routes[len(st.Routes)-1].Dst = p.Masked()
	case p.Bits() < 32:
		st.Routes = append(st.Routes, datapath.FIBRoute{Table: 254, Dst: p.Masked(), Type: "unicast", Dev: dev, Src: p.Addr(), Scope: "link", Protocol: datapath.ProtoKernel})
	}
}

func (n *planned) route(st *datapath.NetState, r datapath.FIBRoute) {
	r.Table = 254
	if r.Type == "" {
		r.Type = "unicast"
	}
	st.Routes = append(st.Routes, r)
}

func (n *planned) fabric() {
	st := n.place("fabric", "")
	n.places["fabric"] = trace.Place{Label: "fabric", Namespace: "fabric", Wire: true}
	n.device(st, datapath.Device{Name: "br", Kind: "bridge", MTU: 1500, MAC: "02:ff:00:00:00:01"})
}

func (n *planned) plug(label string, i topology.Interface) {
	st, fabric := n.states[label], n.states["fabric"]
	n.device(st, datapath.Device{Name: i.Name, Kind: "veth", MTU: 1500, MAC: i.MAC})
	n.address(st, i.Name, i.Prefix)
	port := label + "-" + i.Name
	n.device(fabric, datapath.Device{
		Name: port, Kind: "veth", MTU: 1500, MAC: "02:ff:00:00:01:" + i.MAC[15:], Master: "br",
		Port: &datapath.BridgePort{State: "forwarding", Learning: true, Flood: true},
	})
	n.wire(label, i.Name, "fabric", port)
}

func (n *planned) external() {
	n.place("external", "")
	n.plug("external", topology.Interface{Name: "eth0", Prefix: netip.MustParsePrefix("192.168.233.200/24"), MAC: "02:00:00:00:00:c8"})
	n.listen("external", "tcp", 80)
}

func (n *planned) listen(label, proto string, port uint16) {
	st := n.states[label]
	st.Sockets = append(st.Sockets, datapath.SocketState{Proto: proto, Local: netip.AddrPortFrom(netip.IPv4Unspecified(), port), State: "listen"})
}

// node turns the plan of a node into the state that it leads to.
func (n *planned) node(m topology.NodeState) {
	st := n.place(m.Name, m.Name)
	n.plug(m.Name, m.Interface)
	i := slices.IndexFunc(slices.Concat(flannel.Modes(), calico.Modes()), func(x datapath.Mode) bool { return x.Name() == n.mode })
	mode := slices.Concat(flannel.Modes(), calico.Modes())[i]
	cfg, err := mode.Plan(n.snap, m.Name)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, s := range cfg.Sysctls {
		st.Sysctls[s.Key] = s.Value
	}
	n.links(st, cfg)
	for _, r := range cfg.Routes {
		scope := "global"
		if r.LinkScope || !r.Via.IsValid() {
			scope = "link"
		}
		n.route(st, datapath.FIBRoute{Dst: r.Dst, Type: string(r.Type), Via: r.Via, Dev: r.Dev, Src: r.Src, Onlink: r.Onlink, Scope: scope, MTU: r.MTU, Protocol: r.Protocol})
	}
	for _, x := range cfg.Neighbors {
		st.Neighbors = append(st.Neighbors, datapath.NeighborState{Dev: x.Dev, Address: x.Address, MAC: x.MAC, State: "permanent"})
	}
	for _, x := range cfg.FDB {
		st.FDB = append(st.FDB, datapath.FDBState{Dev: x.Dev, MAC: x.MAC, Dst: x.Dst})
	}
	// Nodes of a lab have no default route, so one leads to services.
	n.route(st, datapath.FIBRoute{Dst: n.snap.Network.ServiceCIDR, Dev: "eth0", Scope: "link"})
	n.learnt(st, m, cfg)
	n.rules(st, m, cfg)
	for j := range st.Devices {
		if st.Sysctls["net/ipv4/ip_forward"] == "1" {
			st.Devices[j].Conf.Forwarding = 1
		}
	}
}

func (n *planned) links(st *datapath.NetState, cfg datapath.NodeConfig) {
	for _, l := range cfg.Links {
		d := n.device(st, datapath.Device{Name: l.Name, Kind: string(l.Kind), MTU: l.MTU, MAC: l.MAC, VXLAN: l.VXLAN})
		if l.Kind == datapath.IPIP {
			d.Kind, d.NoARP, d.Egress = "tun", true, []string{"slipway-ipip-encap"}
			st.Device("eth0").Ingress = []string{"slipway-ipip-decap"}
		}
		for _, a := range l.Addresses {
			n.address(st, l.Name, a)
		}
	}
	for _, p := range cfg.PodPorts {
		mac := p.HostMAC
		if mac == "" {
			mac = "0e:" + p.ContainerMAC[3:]
		}
		d := n.device(st, datapath.Device{Name: p.HostIf, Kind: "veth", MTU: p.MTU, MAC: mac, Master: p.Bridge})
		if p.Bridge != "" {
			d.Port = &datapath.BridgePort{State: "forwarding", Learning: true, Flood: true, Hairpin: p.Hairpin}
		} else {
			d.Conf.ProxyARP = 1
			n.route(st, datapath.FIBRoute{Dst: p.Address, Dev: p.HostIf, Scope: "link"})
		}
		n.wire(cfg.Node, p.HostIf, p.Pod, p.ContainerIf)
	}
	if cfg.UDPTunnel != nil {
		st.UDPTunnel = &datapath.UDPTunnelState{UDPTunnel: *cfg.UDPTunnel, Running: true}
	}
	if cfg.IPIP != nil {
		st.IPIP = &datapath.IPIPState{IPIPTunnel: *cfg.IPIP, Attached: true}
	}
}

// learnt adds the routes that BGP brings in the calico modes.
func (n *planned) learnt(st *datapath.NetState, self topology.NodeState, cfg datapath.NodeConfig) {
	if cfg.BGP == nil {
		return
	}
	for _, m := range n.snap.Nodes {
		if m.Name == self.Name || !m.InDatapath() {
			continue
		}
		for _, b := range m.Blocks {
			r := datapath.FIBRoute{Dst: b, Via: m.Address, Dev: "eth0", Protocol: datapath.ProtoBird}
			if cfg.IPIP != nil {
				r.Dev, r.Onlink = cfg.IPIP.Device, true
			}
			n.route(st, r)
		}
	}
}

func (n *planned) rules(st *datapath.NetState, m topology.NodeState, cfg datapath.NodeConfig) {
	if !m.InDatapath() {
		return
	}
	set, err := kubeproxy.Plan(n.snap, m.Name, kubeproxy.DefaultOptions(n.snap))
	if err != nil {
		n.t.Fatal(err)
	}
	st.Conntrack = &datapath.ConntrackState{Max: 65536}
	st.RuleBackend = "legacy"
	for _, name := range []string{"mangle", "nat", "filter"} {
		st.RuleSave[name] = saveTable(name, append([]datapath.RuleSet{set}, cfg.RuleSets...))
	}
}

var builtinChains = map[string][]string{
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
}

// saveTable writes several owners' shares of a table as iptables-save does.
func saveTable(name string, sets []datapath.RuleSet) string {
	var head, first, jumps, rules []string
	for _, c := range builtinChains[name] {
		head = append(head, ":"+c+" ACCEPT [0:0]")
	}
	for _, s := range sets {
		for _, t := range s.Tables {
			if t.Name != name {
				continue
			}
			for _, c := range t.Chains {
				head = append(head, ":"+c+" - [0:0]")
			}
			for _, j := range t.Jumps {
				if j.Prepend {
					first = append(first, j.Rule)
				} else {
					jumps = append(jumps, j.Rule)
				}
			}
			rules = append(rules, t.Rules...)
		}
	}
	return fmt.Sprintf("*%s\n%s\nCOMMIT\n", name, strings.Join(slices.Concat(head, first, jumps, rules), "\n"))
}

func (n *planned) pod(p topology.Pod) {
	st := n.place(p.Key(), p.Node)
	n.places[p.Key()] = trace.Place{Label: p.Key(), Node: p.Node, Namespace: p.Key(), Pod: true}
	var port datapath.PodPort
	for _, x := range n.snap.Nodes {
		if x.Name != p.Node {
			continue
		}
		bits := 24
		port.Gateway = x.PodCIDR.Addr().Next()
		if n.mode.IsCalico() {
			bits, port.Gateway = 32, calico.Gateway
		}
		n.device(st, datapath.Device{Name: "eth0", Kind: "veth", MTU: int(n.snap.Network.MTU), MAC: p.MAC})
		n.address(st, "eth0", netip.PrefixFrom(p.Address, bits))
	}
	if n.mode.IsCalico() {
		n.route(st, datapath.FIBRoute{Dst: netip.PrefixFrom(port.Gateway, 32), Dev: "eth0", Scope: "link"})
	}
	n.route(st, datapath.FIBRoute{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: port.Gateway, Dev: "eth0"})
	if p.Name != "client" {
		n.listen(p.Key(), "tcp", 80)
		n.listen(p.Key(), "udp", 80)
	}
}

// Shorthands of the tests.

func (n *planned) podAddress(name string) netip.Addr {
	for _, p := range n.snap.Pods {
		if p.Name == name {
			return p.Address
		}
	}
	n.t.Fatalf("no pod %s", name)
	return netip.Addr{}
}

func (n *planned) hostIf(pod string) string {
	for end, far := range n.wires {
		if label, dev, _ := strings.Cut(end, " "); far[0] == "default/"+pod && label != "fabric" {
			return dev
		}
	}
	n.t.Fatalf("pod %s is not plugged in", pod)
	return ""
}

// insert puts rules before all others of a node's table.
func (n *planned) insert(label, table string, rules ...string) {
	st := n.states[label]
	if st.RuleSave[table] == "" {
		st.RuleSave[table] = saveTable(table, nil)
		if st.Conntrack == nil {
			st.Conntrack = &datapath.ConntrackState{Max: 65536}
		}
	}
	head, body, found := strings.Cut(st.RuleSave[table], "\n-A ")
	if found {
		body = "-A " + body
	} else {
		head, body = strings.TrimSuffix(head, "COMMIT\n"), "COMMIT\n"
	}
	st.RuleSave[table] = strings.TrimSpace(head) + "\n" + strings.Join(rules, "\n") + "\n" + body
}

func (n *planned) predict(from string, p datapath.Packet) trace.Prediction {
	return trace.Predict(n, from, p, trace.Options{})
}

// only is the single branch of a prediction.
func (n *planned) only(from string, p datapath.Packet) trace.Branch {
	n.t.Helper()
	got := n.predict(from, p)
	if len(got.Branches) != 1 {
		n.t.Fatalf("%d branches, want one", len(got.Branches))
	}
	return got.Branches[0]
}

func tcp(dst netip.Addr, port uint16) datapath.Packet {
	return datapath.Packet{Proto: "tcp", Dst: dst, SPort: 40000, DPort: port}
}

func ping(dst netip.Addr) datapath.Packet {
	return datapath.Packet{Proto: "icmp", Dst: dst, ICMP: &datapath.ICMPInfo{Type: 8, ID: 77, Seq: 1}}
}

// way writes hops as "place stage device" for comparison.
func way(hops []trace.Hop) string {
	var b strings.Builder
	for _, h := range hops {
		hidden := ""
		if h.Hidden {
			hidden = " (H)"
		}
		fmt.Fprintf(&b, "%s %s %s%s\n", h.Place, h.Device, h.Stage, hidden)
	}
	return b.String()
}
