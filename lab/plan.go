package lab

import (
	"fmt"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/running"
	"slipway/lab/daemon"
	"slipway/topology"
)

// plan is everything that a snapshot asks of the machine. Pure data.
type plan struct {
	snapshot *topology.Snapshot
	mode     datapath.Mode
	nodes    []datapath.NodeConfig // nodes of the datapath, in file order
	routers  []datapath.NodeConfig
	byNode   map[string]int // index into nodes
}

// makePlan plans every node and router of a snapshot whose implementations are
// already resolved.
func makePlan(s *topology.Snapshot) (*plan, error) {
	mode, err := modeOf(s.Network.Mode)
	if err != nil {
		return nil, err
	}
	if err := mode.Check(*s); err != nil {
		return nil, fmt.Errorf("mode %s: %w", mode.Name(), err)
	}
	p := &plan{snapshot: s, mode: mode, byNode: map[string]int{}}
	for _, n := range s.Nodes {
		if !n.InDatapath() {
			continue
		}
		cfg, err := mode.Plan(*s, n.Name)
		if err != nil {
			return nil, fmt.Errorf("plan node %s: %w", n.Name, err)
		}
		if err := planProxy(&cfg, s); err != nil {
			return nil, fmt.Errorf("plan services of node %s: %w", n.Name, err)
		}
		for i := range cfg.PodPorts {
			cfg.PodPorts[i].NetNS = NSOfPod(s.Lab, cfg.PodPorts[i].Pod)
		}
		p.byNode[n.Name] = len(p.nodes)
		p.nodes = append(p.nodes, cfg)
	}
	if crowded(s) {
		if err := knowNeighbors(s, p.nodes); err != nil {
			return nil, err
		}
	}
	for _, r := range s.Routers {
		cfg, err := mode.PlanRouter(*s, r.Name)
		if err != nil {
			return nil, fmt.Errorf("plan router %s: %w", r.Name, err)
		}
		p.routers = append(p.routers, cfg)
	}
	return p, nil
}

// proxyChains is how the names of the real kube-proxy's, and the kubelet's, chains
// begin. It stands for its nftables table too.
const proxyChains = "KUBE-"

// planProxy adds kube-proxy's part to a node, or leaves it to the real one.
func planProxy(cfg *datapath.NodeConfig, s *topology.Snapshot) error {
	if s.Components.Real() {
		cfg.ForeignChains = append(cfg.ForeignChains, proxyChains)
		return nil
	}
	opts := kubeproxy.DefaultOptions(*s)
	rules, err := kubeproxy.Plan(*s, cfg.Node, opts)
	if err != nil {
		return err
	}
	cfg.RuleSets = append(cfg.RuleSets, rules)
	cfg.Sysctls = append(cfg.Sysctls, kubeproxy.Sysctls(opts)...)
	return nil
}

// agents reports whether an agent in each node programs it and plugs pods in, so
// that the lab does not.
func (p *plan) agents() bool { return p.snapshot.Components == topology.ComponentsFull }

// real reports whether real components run in the nodes.
func (p *plan) real() bool { return p.snapshot.Components.Real() }

// all lists the configurations that are the lab's to apply, of nodes and routers.
func (p *plan) all() []datapath.NodeConfig {
	if p.agents() {
		return p.routers
	}
	return p.every()
}

// every lists the configurations of all nodes and routers, whoever applies them.
func (p *plan) every() []datapath.NodeConfig {
	return append(append([]datapath.NodeConfig(nil), p.nodes...), p.routers...)
}

// ports maps each pod that the lab plugs in to its port.
func (p *plan) ports() map[string]podPort {
	out := map[string]podPort{}
	if p.agents() {
		return out
	}
	for _, n := range p.nodes {
		for _, port := range n.PodPorts {
			out[port.Pod] = podPort{PodPort: port, node: n.Node}
		}
	}
	return out
}

// podPort is a pod's port with the node it is on.
type podPort struct {
	datapath.PodPort
	node string
}

// desired is what the daemon has to run for the plan.
func (p *plan) desired(u *underlay, inodes map[string]uint64) daemon.Desired {
	d := daemon.Desired{Lab: p.snapshot.Lab, Snapshot: *p.snapshot, Relays: u.relays(p.snapshot.Lab)}
	for i := range d.Relays {
		r := &d.Relays[i]
		r.NodeInode, r.PortInode = inodes[r.NodeNS], inodes[r.PortNS]
	}
	for _, c := range p.all() {
		ns := NSOfMachine(p.snapshot.Lab, c.Node)
		n := daemon.Node{Name: c.Node, NetNS: ns, Inode: inodes[ns], Speaker: c.BGP}
		if t := running.TunnelOf(c); t != nil {
			n.UDPTunnel, n.IPIP = t.UDP, t.IPIP
		}
		d.Nodes = append(d.Nodes, n)
	}
	if p.agents() {
		return d // containers serve for themselves
	}
	for _, pod := range p.snapshot.Pods {
		ns := NSOfPod(p.snapshot.Lab, pod.Key())
		d.Pods = append(d.Pods, daemon.Pod{Pod: pod, NetNS: ns, Inode: inodes[ns]})
	}
	return d
}
