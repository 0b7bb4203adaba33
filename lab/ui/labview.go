package ui

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"slipway/lab"
	"slipway/lab/services"
	"slipway/topology"
)

// labView is a lab as the page draws it. Pods and services are short: a lab may
// have thousands.
type labView struct {
	Lab         string              `json:"lab"`
	Mode        topology.ModeName   `json:"mode"`
	Components  topology.Components `json:"components,omitempty"`
	Proxy       string              `json:"proxy"`
	PodCIDR     string              `json:"podCIDR"`
	ServiceCIDR string              `json:"serviceCIDR"`
	MTU         int                 `json:"mtu"`
	CreatedAt   time.Time           `json:"createdAt,omitzero"`
	Complete    bool                `json:"complete"` // false while a command is changing it
	AllowChange bool                `json:"allowChange"`
	External    string              `json:"external"` // the machine outside the cluster
	Racks       []rackView          `json:"racks"`
	Routers     []routerView        `json:"routers"`
	Nodes       []nodeView          `json:"nodes"`
	Pods        []podView           `json:"pods"`
	Services    []serviceView       `json:"services"`
	Leases      []lab.LeaseLine     `json:"leases"`
}

type rackView struct {
	Name   string `json:"name"`
	Subnet string `json:"subnet"`
	Shape  string `json:"shape,omitempty"` // "1Gbit 1ms 0.1%"
}

type routerView struct {
	Name  string   `json:"name"`
	Racks []string `json:"racks"`
}

type nodeView struct {
	Name     string          `json:"name"`
	Roles    []topology.Role `json:"roles"`
	Rack     string          `json:"rack"`
	Address  netip.Addr      `json:"address"`
	PodRange string          `json:"podRange,omitempty"`
}

type podView struct {
	Key     string     `json:"key"`
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"`
	System  bool       `json:"system,omitempty"` // the lab's own
	Ports   []string   `json:"ports,omitempty"`  // "80/TCP"
}

type serviceView struct {
	Key       string     `json:"key"`
	Type      string     `json:"type"`
	ClusterIP netip.Addr `json:"clusterIP,omitzero"`
	Ports     []portView `json:"ports"`
	Rules     bool       `json:"rules"` // kube-proxy has rules for it
}

type portView struct {
	Name     string   `json:"name,omitempty"`
	Port     int      `json:"port"`
	Protocol string   `json:"protocol"`
	NodePort int      `json:"nodePort,omitempty"`
	Pods     []string `json:"pods"` // behind it
}

// newLabView shortens a lab's state.
func newLabView(st *lab.State, allowChange bool) *labView {
	s := st.Snapshot
	v := &labView{
		Lab: st.Lab, Mode: s.Network.Mode, Components: s.Components, Proxy: string(s.Proxy.Mode),
		PodCIDR: s.Network.PodCIDR.String(), ServiceCIDR: s.Network.ServiceCIDR.String(), MTU: int(s.Network.MTU),
		CreatedAt: st.CreatedAt, Complete: st.Complete, AllowChange: allowChange, External: lab.ExternalName,
		Racks: []rackView{}, Routers: []routerView{}, Nodes: []nodeView{}, Pods: []podView{}, Services: []serviceView{}, Leases: lab.Leases(s),
	}
	for _, g := range s.Segments {
		v.Racks = append(v.Racks, rackView{Name: g.Name, Subnet: g.Subnet.String(), Shape: shapeOf(g)})
	}
	for _, r := range s.Routers {
		rv := routerView{Name: r.Name, Racks: []string{}}
		for _, i := range r.Interfaces {
			rv.Racks = append(rv.Racks, i.Segment)
		}
		v.Routers = append(v.Routers, rv)
	}
	for _, n := range s.Nodes {
		v.Nodes = append(v.Nodes, nodeView{Name: n.Name, Roles: n.Roles, Rack: n.Segment, Address: n.Address, PodRange: podRange(n)})
	}
	for _, p := range s.Pods {
		pv := podView{Key: p.Key(), Node: p.Node, Address: p.Address, System: p.Kind == topology.PodDNS}
		for _, c := range p.Ports {
			pv.Ports = append(pv.Ports, portText(c.Port, c.Protocol))
		}
		v.Pods = append(v.Pods, pv)
	}
	for _, x := range s.Services {
		v.Services = append(v.Services, newServiceView(x))
	}
	return v
}

func newServiceView(x topology.Service) serviceView {
	v := serviceView{Key: x.Key(), Type: string(x.Type), ClusterIP: x.ClusterIP, Ports: []portView{}, Rules: services.HasRules(x) == nil}
	for _, p := range x.Ports {
		pv := portView{Name: p.Name, Port: p.Port, Protocol: string(p.Protocol), NodePort: p.NodePort, Pods: []string{}}
		for _, e := range p.Endpoints {
			if e.Pod != "" {
				pv.Pods = append(pv.Pods, e.Pod)
			}
		}
		v.Ports = append(v.Ports, pv)
	}
	return v
}

func portText(port int, proto topology.Protocol) string { return fmt.Sprintf("%d/%s", port, proto) }

// shapeOf says what a segment does to packets; empty if it is a plain wire.
func shapeOf(g topology.Segment) string {
	var out []string
	if g.Rate != 0 {
		out = append(out, g.Rate.String())
	}
	if g.Delay != 0 {
		out = append(out, g.Delay.String())
	}
	if g.Loss != 0 {
		out = append(out, g.Loss.String())
	}
	return strings.Join(out, " ")
}

// podRange is what a node hands out to its pods.
func podRange(n topology.NodeState) string {
	if n.PodCIDR.IsValid() {
		return n.PodCIDR.String()
	}
	var out []string
	for _, b := range n.Blocks {
		out = append(out, b.String())
	}
	return strings.Join(out, " ")
}
