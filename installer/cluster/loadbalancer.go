package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// Ports of the balancers in front of the API.
const (
	localPort  = 8443 // of a node's own balancer: 6443 is the API server's beside it
	healthPort = 8081
	adminPort  = 9090
)

const balancerDir = "/etc/slipway/balancer"

// everywhere is the address that means all of a machine's.
var (
	everywhere = netip.IPv4Unspecified()
	loopback   = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

// Endpoint is the URL at which the cluster's nodes reach the API.
func Endpoint(in Inputs) string {
	p := newPlanner(in)
	if at := p.front(); p.balanced() {
		return url(at.Addr(), int(at.Port()))
	}
	return url(address(p.masters[0]), apiPort)
}

// PublicEndpoint is the URL at which the API is reached from elsewhere: the virtual
// address where there is one, else the first master's. It is empty without masters.
func PublicEndpoint(in Inputs) string {
	switch p := newPlanner(in); {
	case len(p.masters) == 0:
		return ""
	case p.balanced() && p.external():
		return Endpoint(in)
	default:
		return url(address(p.masters[0]), apiPort)
	}
}

// balanced reports whether something stands in front of the API servers.
func (p *planner) balanced() bool {
	return len(p.masters) > 0 && p.balancer().Mode != topology.BalancerNone
}

func (p *planner) balancer() topology.LoadBalancer { return p.Cluster.Spec.ControlPlane.LoadBalancer }

// vipUnit holds the virtual address.
const vipUnit = "api-vip.service"

func (p *planner) external() bool { return p.balancer().Mode == topology.BalancerExternal }

// front is where balancers listen. A node's own listens for the node alone: who
// is elsewhere has no business there.
func (p *planner) front() netip.AddrPort {
	if p.external() {
		return netip.AddrPortFrom(p.balancer().VIP, apiPort)
	}
	return netip.AddrPortFrom(loopback, localPort)
}

// balancers are the machines that a balancer runs on.
func (p *planner) balancers() []topology.NodeState {
	if !p.balanced() {
		return nil
	}
	if !p.external() {
		return p.datapath()
	}
	return slices.DeleteFunc(p.allNodes(), func(n topology.NodeState) bool { return !n.HasRole(topology.RoleLoadBalancer) })
}

// loadBalancer puts balancers in front of the API servers. These need not be
// there yet: what is waited for is that the balancers themselves answer.
func (p *planner) loadBalancer() (installer.Phase, error) {
	if !p.balanced() {
		return installer.Phase{}, nil
	}
	ph := installer.Phase{Title: "A balancer before the API servers",
		About: "Every node has one of its own, at 127.0.0.1: when an API server fails, the node's clients are led to another, and nothing that all depend on stands between."}
	if p.external() {
		ph.About = "Machines of their own balance connections to the API servers. They share a virtual address: VRRP gives it to one of them, and to another when that one fails."
	}
	machines := p.balancers()
	work, err := on(machines, p.balancerItems)
	if err != nil {
		return ph, err
	}
	answers, err := on(machines, func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{Name: "the balancer answers", Check: fmt.Sprintf("curl -sSf -m 2 http://127.0.0.1:%d/healthz", healthPort), Until: 20 * time.Second}}, nil
	})
	if err != nil {
		return ph, err
	}
	ph.Steps = []installer.Step{
		{Name: "balancer", Why: "It passes bytes on: TLS is between the client and the API server, and the balancer has no key.", Work: work},
		{Name: "health", Why: "That it works says nothing of the API servers, which may come later.", Work: answers},
	}
	if !p.external() {
		return ph, nil
	}
	vip, err := p.virtualAddress(machines)
	ph.Steps = append(ph.Steps, vip...)
	return ph, err
}

// balancerItems are the balancer of one machine.
func (p *planner) balancerItems(n topology.NodeState) ([]installer.Item, error) {
	software := p.balancer().Software
	name, ok := map[topology.Balancer]string{topology.NGINX: "nginx.conf", topology.HAProxy: "haproxy.cfg", topology.Envoy: "envoy.yaml"}[software]
	if !ok {
		return nil, fmt.Errorf("%q is no balancer that is known here", software)
	}
	type server struct {
		Name    string
		Address netip.Addr
		Port    int
	}
	var servers []server
	for _, m := range p.masters {
		servers = append(servers, server{m.Name, address(m), apiPort})
	}
	health := loopback
	var items []installer.Item
	if p.external() {
		health = everywhere // for whoever watches over the machines
		items = p.foreignAddress()
	}
	text, err := render(name, map[string]any{
		"Cluster": p.Cluster.Metadata.Name, "Servers": servers, "Listen": p.front().Addr(), "ListenPort": p.front().Port(),
		"Health": health, "HealthPort": healthPort, "AdminPort": adminPort, "PKI": pkiDir, "VIP": p.external(),
	})
	if err != nil {
		return nil, err
	}
	config := installer.File{Path: balancerDir + "/" + name, Mode: 0o644, Content: text}
	unit, err := service("api-balancer.service", map[string]any{"Software": string(software), "Config": config.Path}, append(p.files(n, "ca.crt"), config)...)
	return append(items, config, unit), err
}

// foreignAddress lets a machine listen at an address that is another's for now.
func (p *planner) foreignAddress() []installer.Item {
	s := installer.Sysctl{Key: "net.ipv4.ip_nonlocal_bind", Value: "1"}
	return []installer.Item{
		installer.File{Path: "/etc/sysctl.d/91-slipway-balancer.conf", Mode: 0o644, Content: fmt.Appendf(nil, "%s = %s\n", s.Key, s.Value)}, s,
	}
}

// topPriority is what the first machine bids for the VIP; each that follows
// bids one less (255 is for an address's owner, RFC 5798 §5.2.4).
const topPriority = 200

// virtualAddress is keepalived on all balancers.
func (p *planner) virtualAddress(machines []topology.NodeState) ([]installer.Step, error) {
	var number int
	units, err := on(machines, func(n topology.NodeState) ([]installer.Item, error) {
		var peers []netip.Addr
		for _, o := range machines {
			if o.Name != n.Name {
				peers = append(peers, address(o))
			}
		}
		state := "BACKUP"
		if number == 0 && !p.balancer().NoPreempt { // who may not preempt must not begin with the VIP either
			state = "MASTER"
		}
		text, err := render("keepalived.conf", map[string]any{
			"Cluster": p.Cluster.Metadata.Name, "Name": n.Name, "HealthPort": healthPort, "State": state, "Interface": n.Interface.Name,
			"ID": routerID(p.balancer().VIP), "Priority": topPriority - number, "NoPreempt": p.balancer().NoPreempt,
			"Address": address(n), "Peers": peers, "VIP": p.balancer().VIP,
		})
		if err != nil {
			return nil, err
		}
		number++
		config := installer.File{Path: balancerDir + "/keepalived.conf", Mode: 0o644, Content: text}
		unit, err := service(vipUnit, map[string]any{"Config": config.Path}, config)
		return []installer.Item{config, unit}, err
	})
	if err != nil {
		return nil, err
	}
	answers, err := on(machines, func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{Name: "a balancer answers at the VIP", Check: fmt.Sprintf("curl -sSf -m 2 http://%s:%d/healthz", p.balancer().VIP, healthPort), Until: 30 * time.Second}}, nil
	})
	return []installer.Step{
		{Name: "virtual address", Why: "keepalived speaks VRRP, IP protocol 112: the highest bidder has the VIP, and loses it when its balancer does not answer.", Work: units},
		{Name: "somebody has it", Why: "From every balancer, as from any client, the VIP leads to one that works.", Work: answers},
	}, err
}

// routerID tells VIPs of one segment apart: the last byte of each, which no two
// there share while the segment is a /24 (1 to 255, RFC 5798 §5.2.3).
func routerID(vip netip.Addr) int {
	if b := vip.As4()[3]; b != 0 {
		return int(b)
	}
	return 255
}

// reachable waits until the API answers where clients look for it.
func (p *planner) reachable() (installer.Step, error) {
	work, err := on(p.datapath(), func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{
			Name: "the API is ready at " + Endpoint(p.Inputs), Check: fmt.Sprintf("curl -sSf -m 3 -o /dev/null --cacert %s/ca.crt %s/readyz", pkiDir, Endpoint(p.Inputs)), Until: time.Minute,
		}}, nil
	})
	return installer.Step{Name: "endpoint", Why: "Each node reaches the API as its components will, by the balancer where there is one, and the certificate names that address.", Work: work}, err
}

// balancerNeeds are what a machine must have for the balancer that is asked for,
// and no package brings.
func (p *planner) balancerNeeds(n topology.NodeState) []installer.Item {
	if !named(p.balancers(), n.Name) || p.balancer().Software != topology.Envoy {
		return nil
	}
	return []installer.Item{installer.Require{Name: "envoy", Check: "test -x /usr/bin/envoy", Hint: "install envoy as /usr/bin/envoy; Debian has no package of it (getenvoy.io, envoyproxy.io), and nginx or haproxy do the same"}}
}
