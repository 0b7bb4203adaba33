package kubeproxy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slipway/topology"
)

// largeClusterEndpoints is the number of endpoints above which kube-proxy
// leaves out comments (upstream largeClusterEndpointsThreshold).
const largeClusterEndpoints = 1000

// defaultAffinitySeconds is the API's default of sessionAffinityConfig
// (upstream pkg/apis/core/types.go, DefaultClientIPServiceAffinitySeconds).
const defaultAffinitySeconds = 10800

// endpoint is one address behind a service port as kube-proxy sees it.
type endpoint struct {
	topology.Endpoint
	local bool
	text  string // "address:port"
	chain string
}

func (e endpoint) ready() bool { return e.Ready }

// draining endpoints serve only when nothing is ready.
func (e endpoint) draining() bool { return e.Serving && e.Terminating }

// port is a service port with what kube-proxy derives from it.
type port struct {
	svc      topology.Service
	name     string // "namespace/name:port"
	portName string // may be empty
	protocol string // lower case
	number   string
	nodePort int

	external, balanced  []netip.Addr // IPv4 only
	sources             []netip.Prefix
	internalLocal       bool
	externalLocal       bool
	healthCheckNodePort int
	affinity            string // seconds; empty: none

	known               int        // endpoints in any condition
	cluster, localOnly  []endpoint // by policy
	reachable           []endpoint // the union of both
	hasAny              bool       // usable ones on any node
	hasInternal, hasExt bool       // usable by cluster IP; from outside

	clusterChain, localChain, sourceChain, externalChain string
}

// portsOf lists the service ports that kube-proxy serves: those of services
// with an IPv4 cluster IP (upstream ShouldSkipService) that are not another
// proxy's.
func portsOf(s topology.Snapshot, node topology.NodeState) []port {
	var out []port
	for _, svc := range s.Services {
		if svc.Type == topology.ExternalName || svc.Headless || !svc.ClusterIP.Is4() || svc.ProxyName != "" {
			continue
		}
		for _, sp := range svc.Ports {
			out = append(out, newPort(svc, sp, node))
		}
	}
	return out
}

func newPort(svc topology.Service, sp topology.ServicePort, node topology.NodeState) port {
	p := port{
		svc:           svc,
		name:          svc.Key(),
		portName:      sp.Name,
		protocol:      strings.ToLower(string(sp.Protocol)),
		number:        strconv.Itoa(sp.Port),
		nodePort:      sp.NodePort,
		external:      only4(svc.ExternalIPs),
		balanced:      only4(svc.LoadBalancerIPs),
		sources:       sourceRanges(svc.SourceRanges),
		internalLocal: svc.InternalPolicyLocal,
		externalLocal: svc.ExternalPolicyLocal && takesOutsiders(svc),
	}
	if sp.Name != "" {
		p.name += ":" + sp.Name
	}
	if svc.Type == topology.LoadBalanced && p.externalLocal {
		p.healthCheckNodePort = svc.HealthCheckNodePort
	}
	if svc.AffinityClientIP {
		seconds := svc.AffinitySeconds
		if seconds == 0 {
			seconds = defaultAffinitySeconds
		}
		p.affinity = strconv.Itoa(seconds)
	}
	hash := chainHash(p.name, p.protocol, "")
	p.clusterChain, p.localChain = prefixCluster+hash, prefixLocal+hash
	p.sourceChain, p.externalChain = prefixSource+hash, prefixExternal+hash
	p.categorise(p.endpoints(sp.Endpoints, node.Name), node)
	return p
}

// takesOutsiders is upstream's ExternallyAccessible of a service
// (pkg/api/v1/service/util.go), which goes by type.
func takesOutsiders(svc topology.Service) bool {
	return svc.Type == topology.LoadBalanced || svc.Type == topology.NodePort ||
		svc.Type == topology.ClusterIP && len(svc.ExternalIPs) > 0
}

// accessible is upstream's ExternallyAccessible of a service port
// (pkg/proxy/serviceport.go), which goes by addresses.
func (p *port) accessible() bool {
	return p.nodePort != 0 || len(p.balanced) > 0 || len(p.external) > 0
}

// usesCluster: a policy of Cluster applies to some traffic; from outside it
// always does to the node's own and its pods'.
func (p *port) usesCluster() bool { return !p.internalLocal || p.accessible() }

func (p *port) usesLocal() bool {
	return p.internalLocal || p.externalLocal && p.accessible()
}

// usesSources: the load balancer's addresses are behind a source filter.
func (p *port) usesSources() bool {
	return p.hasAny && len(p.balanced) > 0 && len(p.sources) > 0
}

// endpoints brings the endpoints into kube-proxy's order, which is that of
// their text, and drops doubles: of two with one address the one that is not
// terminating stays (upstream pkg/proxy/endpointslicecache.go).
func (p *port) endpoints(in []topology.Endpoint, node string) []endpoint {
	out := make([]endpoint, 0, len(in))
	for _, e := range in {
		if !e.Address.Is4() {
			continue
		}
		text := e.Address.String() + ":" + strconv.Itoa(e.Port)
		x := endpoint{Endpoint: e, local: e.Node != "" && e.Node == node, text: text}
		i, found := slices.BinarySearchFunc(out, text, func(o endpoint, t string) int { return strings.Compare(o.text, t) })
		switch {
		case !found:
			x.chain = prefixEndpoint + chainHash(p.name, p.protocol, text)
			out = slices.Insert(out, i, x)
		case !e.Terminating:
			x.chain = out[i].chain
			out[i] = x
		}
	}
	return out
}

// categorise chooses the endpoints of each traffic policy: the ready ones, for
// Cluster of those that the hints prefer, and where there are none the draining
// ones, independently for Cluster and Local (upstream CategorizeEndpoints,
// pkg/proxy/topology.go).
func (p *port) categorise(all []endpoint, node topology.NodeState) {
	p.known = len(all)
	if p.usesCluster() {
		if p.cluster = preferred(where(all, endpoint.ready), node); len(p.cluster) == 0 {
			p.cluster = where(all, endpoint.draining)
		}
		p.hasAny = len(p.cluster) > 0
	}
	if p.usesLocal() {
		p.hasAny = slices.ContainsFunc(all, func(e endpoint) bool { return e.ready() || e.draining() })
		local := where(all, func(e endpoint) bool { return e.local })
		if p.localOnly = where(local, endpoint.ready); len(p.localOnly) == 0 {
			p.localOnly = where(local, endpoint.draining)
		}
	}
	p.reachable = union(p.cluster, p.localOnly)
	p.hasInternal, p.hasExt = p.hasAny, p.hasAny
	if p.internalLocal {
		p.hasInternal = len(p.localOnly) > 0
	}
	if p.externalLocal {
		p.hasExt = len(p.localOnly) > 0
	}
}

// where lists the endpoints that are as wanted.
func where(all []endpoint, want func(endpoint) bool) []endpoint {
	var out []endpoint
	for _, e := range all {
		if want(e) {
			out = append(out, e)
		}
	}
	return out
}

// preferred is [topology.Preferred] of endpoints as kube-proxy sees them.
func preferred(ready []endpoint, node topology.NodeState) []endpoint {
	if !slices.ContainsFunc(ready, func(e endpoint) bool { return len(e.ForZones)+len(e.ForNodes) > 0 }) {
		return ready
	}
	all := make([]topology.Endpoint, len(ready))
	for i, e := range ready {
		all[i] = e.Endpoint
	}
	some := map[netip.AddrPort]bool{}
	for _, e := range topology.Preferred(all, node) {
		some[netip.AddrPortFrom(e.Address, uint16(e.Port))] = true
	}
	return where(ready, func(e endpoint) bool { return some[netip.AddrPortFrom(e.Address, uint16(e.Port))] })
}

// union merges two lists in text order. (Upstream's order is random where the
// lists differ.)
func union(a, b []endpoint) []endpoint {
	if len(b) == 0 {
		return a
	}
	out := slices.Concat(a, b)
	slices.SortFunc(out, func(x, y endpoint) int { return strings.Compare(x.text, y.text) })
	return slices.CompactFunc(out, func(x, y endpoint) bool { return x.text == y.text })
}

func only4(in []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range in {
		if a.Is4() {
			out = append(out, a)
		}
	}
	return out
}

// sourceRanges are the IPv4 ranges, none if one of them is everybody.
func sourceRanges(in []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range in {
		if !r.Addr().Is4() {
			continue
		}
		if r.Bits() == 0 {
			return nil
		}
		out = append(out, r.Masked())
	}
	return out
}
