package mesh

import (
	"fmt"
	"net/netip"
	"slices"

	"slipway/installer/cluster"
	"slipway/topology"
)

// Protocol is what a pair speaks.
type Protocol string

// The protocols. IPIP and VRRP are IP's own, and have no ports
// (https://www.iana.org/assignments/protocol-numbers: 4 and 112).
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	IPIP Protocol = "ipip"
	VRRP Protocol = "vrrp"
)

// numbers are those of protocols without ports.
var numbers = map[Protocol]int{IPIP: 4, VRRP: 112}

// Pair is who has to reach whom, by what.
type Pair struct {
	From     string   `json:"from"`
	To       string   `json:"to"`
	Protocol Protocol `json:"protocol"`
	Port     int      `json:"port,omitempty"`
	For      string   `json:"for"` // "etcd's members"
	// Address is where To is reached: its own, or the loopback's.
	Address netip.Addr `json:"address"`
}

// Name is what is tried: "8472/udp", "ipip".
func (p Pair) Name() string {
	if p.Port == 0 {
		return string(p.Protocol)
	}
	return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
}

// bgpPort is BGP's (RFC 4271 §8).
const bgpPort = 179

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// wanting gathers pairs.
type wanting struct {
	in    cluster.Inputs
	pairs []Pair
	has   map[Pair]bool // without what for
}

// Wanted are the pairs of a cluster, by its nodes' roles and its mode, in a stable
// order. Of NodePorts the first, the last and one between stand for all.
func Wanted(c *topology.Cluster, s *topology.Snapshot) []Pair {
	w := &wanting{in: cluster.Inputs{Cluster: c, Snapshot: s}, has: map[Pair]bool{}}
	masters, members := w.listening("kube-apiserver.service"), w.listening("etcd.service")
	proxied, kubelets, balancers := w.listening("kube-proxy.service"), w.listening("kubelet.service"), w.balancers()
	if len(balancers) > 0 {
		w.mesh(balancers, masters, TCP, 6443, "the balancers' way to the API")
		w.mesh(proxied, balancers, TCP, 6443, "the API by its balancers")
		w.mesh(balancers, balancers, VRRP, 0, "the virtual address")
	} else {
		w.mesh(proxied, masters, TCP, 6443, "the API")
	}
	w.mesh(masters, members, TCP, 2379, "the API's database")
	w.mesh(members, members, TCP, 2380, "etcd's members")
	w.mesh(masters, kubelets, TCP, 10250, "logs and shells of pods")
	w.mesh(masters, proxied, TCP, 10256, "kube-proxy's health")
	w.mesh(w.balancers(), w.balancers(), TCP, 8081, "the balancers' health")
	ports := c.Spec.Proxy.NodePorts
	for _, port := range []int{ports.First, (ports.First + ports.Last) / 2, ports.Last} {
		w.mesh(s.Nodes, proxied, TCP, port, "NodePorts")
	}
	w.datapath()
	w.alone()
	return w.pairs
}

// listening are the nodes on which a unit listens.
func (w *wanting) listening(unit string) (out []topology.NodeState) {
	for _, n := range w.in.Snapshot.Nodes {
		if slices.ContainsFunc(cluster.Listeners(w.in, n), func(l cluster.Listener) bool { return l.Unit == unit }) {
			out = append(out, n)
		}
	}
	return out
}

// balancers are the machines in front of the API, if there are any.
func (w *wanting) balancers() (out []topology.NodeState) {
	if w.in.Cluster.Spec.ControlPlane.LoadBalancer.Mode != topology.BalancerExternal {
		return nil
	}
	for _, n := range w.in.Snapshot.Nodes {
		if n.HasRole(topology.RoleLoadBalancer) {
			out = append(out, n)
		}
	}
	return out
}

// mesh adds a pair of every machine of some with every other of others.
func (w *wanting) mesh(from, to []topology.NodeState, p Protocol, port int, why string) {
	for _, f := range from {
		for _, t := range to {
			if f.Name != t.Name && len(f.Roles) > 0 {
				w.add(f, t, p, port, why)
			}
		}
	}
}

func (w *wanting) add(f, t topology.NodeState, p Protocol, port int, why string) {
	pair := Pair{From: f.Name, To: t.Name, Protocol: p, Port: port, Address: t.Interface.Prefix.Addr()}
	if w.has[pair] {
		return
	}
	w.has[pair] = true
	pair.For = why
	w.pairs = append(w.pairs, pair)
}

// datapath adds what carries pods' packets, and tells their routes.
func (w *wanting) datapath() {
	var nodes []topology.NodeState
	for _, n := range w.in.Snapshot.Nodes {
		if n.InDatapath() && len(n.Roles) > 0 {
			nodes = append(nodes, n)
		}
	}
	net := w.in.Snapshot.Network
	for _, f := range nodes {
		for _, t := range nodes {
			if f.Name == t.Name {
				continue
			}
			near := f.Interface.Segment == t.Interface.Segment
			switch net.Mode {
			case topology.FlannelVXLAN:
				if !near || !net.VXLAN.DirectRouting {
					w.add(f, t, UDP, net.VXLAN.Port, "pods' packets by VXLAN")
				}
			case topology.FlannelUDP:
				w.add(f, t, UDP, net.UDP.Port, "pods' packets by UDP")
			case topology.CalicoIPIP:
				if !near || net.IPIP.Policy != topology.IPIPCrossSubnet {
					w.add(f, t, IPIP, 0, "pods' packets by IPIP")
				}
			}
			if net.Mode.IsCalico() && peers(net.BGP, f.Name, t.Name) {
				w.add(f, t, TCP, bgpPort, "pods' routes by BGP")
			}
		}
	}
}

// peers reports whether two nodes speak BGP with each other.
func peers(b topology.BGP, x, y string) bool {
	return b.Topology != topology.RouteReflectors || slices.Contains(b.RouteReflectors, x) || slices.Contains(b.RouteReflectors, y)
}

// alone adds what a machine reaches of itself, at the loopback.
func (w *wanting) alone() {
	for _, n := range w.in.Snapshot.Nodes {
		for _, l := range cluster.Listeners(w.in, n) {
			for _, port := range l.Ports {
				if l.Loopback {
					w.pairs = append(w.pairs, Pair{From: n.Name, To: n.Name, Protocol: TCP, Port: port, For: l.Unit + " at the loopback", Address: loopback})
				}
			}
		}
	}
}
