package services

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

// MaxConnections is the most that a check opens: each leaves a port and an entry
// of connection tracking behind for two minutes.
const MaxConnections = 10_000

// CheckOptions say what is to be checked.
type CheckOptions struct {
	Service Found  // with one port
	From    string // as lab.Resolve takes it; empty: see [Check]
	Via     Via    // empty: the cluster IP
	Node    string // whose node port is used; empty: see [Check]
	Count   int    // of connections, at most MaxConnections
	// Step is called after each connection; may be nil.
	Step func()
}

// Result is what a check found.
type Result struct {
	Lab     string         `json:"lab"`
	Service string         `json:"service"`
	Port    string         `json:"port"`
	From    string         `json:"from"`
	Client  netip.Addr     `json:"client"` // the address that the deciding node sees
	Via     Via            `json:"via"`
	To      netip.AddrPort `json:"to"`
	// Rules is what the rules of the node that decides make of a connection.
	Rules Expected `json:"rules"`
	// Wanted are the endpoints that the service object asks for.
	Wanted    []netip.AddrPort `json:"wanted"`
	Asked     int              `json:"asked"` // connections that were to be opened
	Tried     int              `json:"tried"`
	Answered  int              `json:"answered"`
	Endpoints []EndpointCount  `json:"endpoints"`
	Sources   []SourceCount    `json:"sources,omitempty"` // that HTTP endpoints saw
	Failures  []FailureCount   `json:"failures,omitempty"`
	ChiSquare *ChiSquare       `json:"chiSquare,omitempty"`
	Took      time.Duration    `json:"tookNs"`
	// Findings are what is not as it should be; none is a pass.
	Findings []string `json:"findings"`
	OK       bool     `json:"ok"`
	Notes    []string `json:"notes,omitempty"`
}

// EndpointCount is how many connections reached an endpoint.
type EndpointCount struct {
	EndpointView
	Connections int     `json:"connections"`
	Probability float64 `json:"probability"` // that the rules give it
	Expected    float64 `json:"expected"`    // connections
}

// SourceCount is how many connections had an address as their source.
type SourceCount struct {
	Address     netip.Addr `json:"address"`
	Connections int        `json:"connections"`
}

// FailureCount is how many connections ended without an answer.
type FailureCount struct {
	Reason      string `json:"reason"`
	Connections int    `json:"connections"`
}

// Check opens connections to a service and holds what became of them against
// the rules that decided, and these against the service. The client is by
// default a pod that is not an endpoint, for node ports the machine outside of
// the cluster; the node port is that of the first node, with policy Local of
// the first that has an endpoint. An error means that nothing could be checked.
func Check(ctx context.Context, st *lab.State, o CheckOptions) (*Result, error) {
	port, err := o.Service.OnePort()
	if err != nil {
		return nil, err
	}
	if port.Protocol == topology.SCTPProtocol {
		return nil, &WayError{Reason: "only TCP and UDP ports can be checked"}
	}
	if o.Via == "" {
		o.Via = ViaClusterIP
	}
	c := &check{st: st, o: o, service: o.Service.Service, port: port}
	if c.from, err = c.client(); err != nil {
		return nil, err
	}
	to, err := c.address()
	if err != nil {
		return nil, err
	}
	way := newWay(ctx, st)
	defer way.close()
	if c.step, err = way.follow(c.from, to, port.Protocol); err != nil {
		return nil, err
	}
	v, err := Look(st.Snapshot, Found{Service: c.service, Ports: []topology.ServicePort{port}}, c.step.node)
	if err != nil {
		return nil, err
	}
	c.step.expected.AffinitySeconds = affinity(&v.Ports[0], &c.step.expected)
	c.result = &Result{
		Lab: st.Lab, Service: c.service.Key(), Port: portLabel(port), From: c.from.Label, Client: c.step.packet.Src, Via: o.Via, To: to,
		Rules: c.step.expected, Wanted: c.wanted(), Asked: o.Count, Endpoints: []EndpointCount{}, Findings: []string{},
	}
	if err := c.connect(ctx, to); err != nil {
		return nil, err
	}
	c.judge()
	return c.result, ctx.Err()
}

// check is one run.
type check struct {
	st      *lab.State
	o       CheckOptions
	service topology.Service
	port    topology.ServicePort
	from    *lab.Target
	step    step
	result  *Result
	conns   []conn
}

// client finds where the connections come from.
func (c *check) client() (*lab.Target, error) {
	if c.o.From != "" {
		return lab.Resolve(c.st, c.o.From)
	}
	if c.o.Via == ViaNodePort {
		return lab.Resolve(c.st, lab.ExternalName)
	}
	endpoint := map[string]bool{}
	for _, e := range c.port.Endpoints {
		endpoint[e.Pod] = true
	}
	pods := slices.DeleteFunc(slices.Clone(c.st.Snapshot.Pods), func(p topology.Pod) bool { return p.Kind != topology.PodEcho })
	rank := func(p topology.Pod) int {
		if c.service.InternalPolicyLocal && !c.hasEndpointOn(p.Node) {
			return 2 // nothing would answer it
		}
		return boolInt(endpoint[p.Key()])
	}
	if len(pods) > 0 {
		return lab.Resolve(c.st, slices.MinFunc(pods, func(a, b topology.Pod) int { return rank(a) - rank(b) }).Key())
	}
	for _, n := range Nodes(c.st.Snapshot) {
		return lab.Resolve(c.st, n)
	}
	return nil, &WayError{Reason: "the lab has no place to connect from"}
}

func (c *check) hasEndpointOn(node string) bool {
	return slices.ContainsFunc(c.port.Endpoints, func(e topology.Endpoint) bool { return e.Node == node })
}

// address finds what to connect to.
func (c *check) address() (netip.AddrPort, error) {
	v, port := c.service, uint16(c.port.Port)
	none := func(what string) error {
		return &WayError{Reason: fmt.Sprintf("%s has no %s", v.Key(), what)}
	}
	switch c.o.Via {
	case ViaClusterIP:
		return netip.AddrPortFrom(v.ClusterIP, port), nil
	case ViaExternalIP, ViaLoadBalancer:
		addrs := slices.Concat(v.ExternalIPs, v.LoadBalancerIPs)
		if len(addrs) == 0 {
			return netip.AddrPort{}, none("external IP and no load balancer's")
		}
		return netip.AddrPortFrom(addrs[0], port), nil
	case ViaNodePort:
		if c.port.NodePort == 0 {
			return netip.AddrPort{}, none("node port")
		}
		node, err := c.nodeOfPort()
		if err != nil {
			return netip.AddrPort{}, err
		}
		n, _ := c.st.Snapshot.NodeByName(node)
		return netip.AddrPortFrom(n.Address, uint16(c.port.NodePort)), nil
	default:
		return netip.AddrPort{}, &WayError{Reason: fmt.Sprintf("%q is not one of %s, %s, %s", c.o.Via, ViaClusterIP, ViaNodePort, ViaExternalIP)}
	}
}

func (c *check) nodeOfPort() (string, error) {
	if c.o.Node != "" {
		return c.o.Node, CheckNode(c.st.Snapshot, c.o.Node)
	}
	nodes := Nodes(c.st.Snapshot)
	if len(nodes) == 0 {
		return "", &WayError{Reason: "no node of the lab carries services"}
	}
	if c.service.ExternalPolicyLocal {
		if i := slices.IndexFunc(nodes, c.hasEndpointOn); i >= 0 {
			return nodes[i], nil
		}
	}
	return nodes[0], nil
}

// wanted are the endpoints that connections should reach, as Kubernetes defines
// it: the ready ones, by their hints, draining ones if none is; with a policy Local those of the
// deciding node, which holds clients inside the cluster to it only for the
// internal policy.
func (c *check) wanted() []netip.AddrPort {
	src := c.step.packet.Src
	outside := !c.st.Snapshot.Network.PodCIDR.Contains(src) && !c.step.local(src)
	local := c.service.InternalPolicyLocal
	if c.o.Via != ViaClusterIP {
		local = c.service.ExternalPolicyLocal && outside
	}
	all := slices.DeleteFunc(slices.Clone(c.port.Endpoints), func(e topology.Endpoint) bool { return local && e.Node != c.step.node.Node })
	ready := slices.DeleteFunc(slices.Clone(all), func(e topology.Endpoint) bool { return !e.Ready })
	if n, ok := c.st.Snapshot.NodeByName(c.step.node.Node); ok && !local {
		ready = topology.Preferred(ready, n)
	}
	if len(ready) == 0 {
		ready = slices.DeleteFunc(all, func(e topology.Endpoint) bool { return !e.Serving || !e.Terminating })
	}
	out := []netip.AddrPort{}
	for _, e := range ready {
		out = append(out, netip.AddrPortFrom(e.Address, uint16(e.Port)))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// Where the rules say that nothing will answer, a few connections show it. The
// kernel sends a host six ICMP errors at once and then one in a second (linux
// net/ipv4/route.c, XRLIM_BURST_FACTOR; sysctl icmp_ratelimit): more refusals
// would look like drops.
const (
	refusedCount = 3
	droppedCount = 3
)

// connect opens the connections and finds out who answered them.
func (c *check) connect(ctx context.Context, to netip.AddrPort) error {
	ns, err := netns.Open(c.from.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	step := c.o.Step
	if step == nil {
		step = func() {}
	}
	n := c.o.Count
	switch c.step.expected.certain() {
	case "refused":
		n = min(n, refusedCount)
	case "dropped":
		n = min(n, droppedCount)
	}
	began := time.Now()
	c.conns = (&connector{ns: ns, to: to, proto: c.port.Protocol, step: step}).run(ctx, n)
	c.result.Took = time.Since(began)
	return c.identify(ctx, to)
}

// identify asks the deciding node's connection tracking who answered the
// connections that did not say.
func (c *check) identify(ctx context.Context, to netip.AddrPort) error {
	if !slices.ContainsFunc(c.conns, func(r conn) bool { return r.failure == "" && !r.endpoint.IsValid() }) {
		return nil
	}
	ns, err := netns.Open(lab.NSOfMachine(c.st.Lab, c.step.node.Node))
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	h, err := linux.Open(ns, linux.Options{})
	if err != nil {
		return err
	}
	defer h.Close()
	st, err := h.Collect(ctx, linux.CollectOptions{SkipRules: true, SkipSockets: true, Conntrack: []linux.ConntrackQuery{{Proto: protoName(c.port.Protocol), Dst: to}}})
	if err != nil {
		return err
	}
	if st.Conntrack == nil {
		return nil
	}
	by := map[netip.AddrPort]netip.AddrPort{}
	for _, e := range st.Conntrack.Entries {
		if e.OrigDst == to {
			by[e.OrigSrc] = e.ReplySrc
		}
	}
	for i := range c.conns {
		if r := &c.conns[i]; r.failure == "" && !r.endpoint.IsValid() {
			r.endpoint = by[r.client]
		}
	}
	return nil
}
