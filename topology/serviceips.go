package topology

import (
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// serviceAllocator hands out cluster IPs and node ports.
type serviceAllocator struct {
	cidr        netip.Prefix
	ports       PortRange
	prev, alloc *Allocation
	ipOwner     map[netip.Addr]string
	portOwner   map[string]string // "30000/TCP" → key
	explicit    map[string]bool   // services and ports that the manifest numbers
	nextIP      uint32
	errs        []error
}

func newServiceAllocator(c *Cluster, prev, alloc *Allocation) *serviceAllocator {
	return &serviceAllocator{
		cidr: c.Spec.Network.ServiceCIDR.Masked(), ports: c.Spec.Proxy.NodePorts, prev: prev, alloc: alloc,
		ipOwner: map[netip.Addr]string{}, portOwner: map[string]string{}, explicit: map[string]bool{},
		nextIP: dnsIndex + 1,
	}
}

func (a *serviceAllocator) fail(format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf(format, args...))
}

// reserve takes out what the manifests ask for by number, before anything is
// handed out freely.
func (a *serviceAllocator) reserve(s *corev1.Service) {
	key := s.Namespace + "/" + s.Name
	if serviceType(s) == ExternalName {
		return
	}
	if s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
		a.reserveIP(key, s.Spec.ClusterIP)
	} else if key == dnsNamespace+"/"+dnsService && s.Spec.ClusterIP == "" {
		a.reserveIP(key, offset(a.cidr, dnsIndex).String())
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 {
			a.reservePort(nodePortKey(s, p), int(p.NodePort), protocolOf(p.Protocol))
		}
	}
	if p := s.Spec.HealthCheckNodePort; p != 0 {
		a.reservePort(healthKey(s), int(p), TCPProtocol)
	}
}

func (a *serviceAllocator) reserveIP(key, text string) {
	a.explicit[key] = true
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		a.fail("service %s: clusterIP %q: %w", key, text, err)
	case !isHost(a.cidr, ip):
		a.fail("service %s: clusterIP %s is not a host of the service CIDR %s", key, ip, a.cidr)
	case a.ipOwner[ip] != "":
		a.fail("service %s: clusterIP %s is taken by service %s", key, ip, a.ipOwner[ip])
	default:
		a.ipOwner[ip] = key
		a.alloc.ClusterIPs[key] = ip.String()
	}
}

func (a *serviceAllocator) reservePort(key string, port int, proto Protocol) {
	a.explicit[key] = true
	id := portID(port, proto)
	switch {
	case !a.ports.Contains(port):
		a.fail("service port %s: nodePort %d is outside %s", key, port, a.ports)
	case a.portOwner[id] != "":
		a.fail("service port %s: nodePort %d is taken by %s", key, port, a.portOwner[id])
	default:
		a.portOwner[id] = key
		a.alloc.NodePorts[key] = port
	}
}

// portID tells node ports apart: the same number may serve TCP and UDP.
func portID(port int, proto Protocol) string { return strconv.Itoa(port) + "/" + string(proto) }

// restore gives a service what it had before, as far as it still may have it.
func (a *serviceAllocator) restore(s *corev1.Service) {
	key := s.Namespace + "/" + s.Name
	if serviceType(s) == ExternalName {
		return
	}
	if ip, err := netip.ParseAddr(a.prev.ClusterIPs[key]); err == nil && !a.explicit[key] &&
		s.Spec.ClusterIP == "" && isHost(a.cidr, ip) && a.ipOwner[ip] == "" {
		a.giveIP(key, ip)
	}
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; wantsNodePorts(s) {
			a.restorePort(nodePortKey(s, p), protocolOf(p.Protocol))
		}
	}
	if wantsHealthCheck(s) {
		a.restorePort(healthKey(s), TCPProtocol)
	}
}

func (a *serviceAllocator) restorePort(key string, proto Protocol) {
	port := a.prev.NodePorts[key]
	if !a.explicit[key] && a.ports.Contains(port) && a.portOwner[portID(port, proto)] == "" {
		a.givePort(key, port, proto)
	}
}

// clusterIP is the service's address: the one reserved or restored, else the
// lowest free one after the DNS's.
func (a *serviceAllocator) clusterIP(s *corev1.Service) netip.Addr {
	key := s.Namespace + "/" + s.Name
	if ip, err := netip.ParseAddr(a.alloc.ClusterIPs[key]); err == nil || a.explicit[key] {
		return ip // the zero Addr if reserving it failed
	}
	// The first host is the apiserver's and the tenth the DNS's, always.
	last := uint32(size(a.cidr)) - 2
	for ; a.nextIP <= last; a.nextIP++ {
		if ip := offset(a.cidr, a.nextIP); a.ipOwner[ip] == "" {
			return a.giveIP(key, ip)
		}
	}
	for n := uint32(2); n < dnsIndex && n <= last; n++ {
		if ip := offset(a.cidr, n); a.ipOwner[ip] == "" {
			return a.giveIP(key, ip)
		}
	}
	a.fail("service %s: service CIDR %s is full", key, a.cidr)
	return netip.Addr{}
}

func (a *serviceAllocator) giveIP(key string, ip netip.Addr) netip.Addr {
	a.ipOwner[ip] = key
	a.alloc.ClusterIPs[key] = ip.String()
	return ip
}

// wantsNodePorts reports whether each port of the service gets a node port.
func wantsNodePorts(s *corev1.Service) bool {
	switch serviceType(s) {
	case NodePort:
		return true
	case LoadBalanced:
		return s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

// wantsHealthCheck reports whether nodes answer a balancer's health checks for
// the service (k8s.io/api core/v1 ServiceSpec.HealthCheckNodePort).
func wantsHealthCheck(s *corev1.Service) bool {
	return serviceType(s) == LoadBalanced && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// nodePort is the port's node port, or 0 for a type without.
func (a *serviceAllocator) nodePort(s *corev1.Service, p *corev1.ServicePort) int {
	if p.NodePort == 0 && !wantsNodePorts(s) {
		return 0
	}
	return a.port(nodePortKey(s, p), protocolOf(p.Protocol))
}

// port is the number reserved or restored for key, else the lowest free one.
func (a *serviceAllocator) port(key string, proto Protocol) int {
	if port, ok := a.alloc.NodePorts[key]; ok || a.explicit[key] {
		return port
	}
	for port := a.ports.First; port <= a.ports.Last; port++ {
		if a.portOwner[portID(port, proto)] == "" {
			return a.givePort(key, port, proto)
		}
	}
	a.fail("service port %s: node ports %s are used up", key, a.ports)
	return 0
}

func (a *serviceAllocator) givePort(key string, port int, proto Protocol) int {
	a.portOwner[portID(port, proto)] = key
	a.alloc.NodePorts[key] = port
	return port
}
