package topology

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// defaultAffinitySeconds is core/v1 DefaultClientIPServiceAffinitySeconds.
const defaultAffinitySeconds = 10800

// serviceProxyName is the label by which a service asks for another proxy than
// kube-proxy (k8s.io/kube-proxy, pkg/proxy/apis/well_known_labels.go).
const serviceProxyName = "service.kubernetes.io/service-proxy-name"

// allocateServices resolves every service: addresses, ports and endpoints.
func allocateServices(c *Cluster, objs *Objects, prev *Allocation, snap *Snapshot, alloc *Allocation, dnsNames map[string]string) error {
	r := &resolver{snap: snap, dnsNames: dnsNames}
	r.indexPods()
	r.indexSlices(objs)
	a := newServiceAllocator(c, prev, alloc)
	for i := range objs.Services {
		a.reserve(&objs.Services[i])
	}
	for i := range objs.Services {
		a.restore(&objs.Services[i])
	}
	for i := range objs.Services {
		s := &objs.Services[i]
		out := Service{
			Namespace: s.Namespace, Name: s.Name, Type: serviceType(s), Selector: s.Spec.Selector,
			ExternalIPs: addresses(s.Spec.ExternalIPs), PublishNotReady: s.Spec.PublishNotReadyAddresses,
			ProxyName: s.Labels[serviceProxyName],
		}
		if out.Type == ExternalName {
			out.ExternalName = strings.TrimSuffix(s.Spec.ExternalName, ".")
			snap.Services = append(snap.Services, out)
			continue
		}
		a.fill(s, &out)
		for j := range s.Spec.Ports {
			out.Ports = append(out.Ports, r.port(s, &s.Spec.Ports[j], a.nodePort(s, &s.Spec.Ports[j])))
		}
		snap.Services = append(snap.Services, out)
	}
	slices.SortFunc(snap.Services, func(a, b Service) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for _, s := range snap.Services {
		if s.Namespace == dnsNamespace && s.Name == dnsService {
			snap.ClusterDNS = s.ClusterIP
		}
	}
	return errors.Join(a.errs...)
}

func serviceType(s *corev1.Service) ServiceType {
	if s.Spec.Type == "" {
		return ClusterIP
	}
	return ServiceType(s.Spec.Type)
}

// addresses parses what LoadManifests has checked.
func addresses(in []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// serviceIngressIPs are the addresses that a load balancer would announce:
// what the manifest's status or the older loadBalancerIP says. Behind one whose
// ipMode is Proxy nobody in the cluster sees its address (core/v1
// LoadBalancerIngress).
func serviceIngressIPs(s *corev1.Service) []string {
	var out []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, in.IP)
		}
	}
	if ip := s.Spec.LoadBalancerIP; ip != "" && !contains(out, ip) { //nolint:staticcheck // deprecated, still used
		out = append(out, ip)
	}
	return out
}

// sourceRanges parses what LoadManifests has checked. The API allows spaces
// around a range.
func sourceRanges(s *corev1.Service) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range s.Spec.LoadBalancerSourceRanges {
		if p, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// fill sets everything of a service but its ports.
func (a *serviceAllocator) fill(s *corev1.Service, out *Service) {
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		out.Headless = true
	} else {
		out.ClusterIP = a.clusterIP(s)
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.AffinityClientIP, out.AffinitySeconds = true, defaultAffinitySeconds
		if cfg := s.Spec.SessionAffinityConfig; cfg != nil && cfg.ClientIP != nil && cfg.ClientIP.TimeoutSeconds != nil {
			out.AffinitySeconds = int(*cfg.ClientIP.TimeoutSeconds)
		}
	}
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		out.InternalPolicyLocal = *p == corev1.ServiceInternalTrafficPolicyLocal
	}
	out.ExternalPolicyLocal = s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if out.Type == LoadBalanced {
		out.LoadBalancerIPs = addresses(serviceIngressIPs(s))
		out.SourceRanges = sourceRanges(s)
	}
	if wantsHealthCheck(s) {
		out.HealthCheckNodePort = a.port(healthKey(s), TCPProtocol)
	}
}

// healthKey names a service's health check port in the allocation.
func healthKey(s *corev1.Service) string { return s.Namespace + "/" + s.Name + ":healthcheck" }

func nodePortKey(s *corev1.Service, p *corev1.ServicePort) string {
	return fmt.Sprintf("%s/%s:%d/%s", s.Namespace, s.Name, p.Port, protocolOf(p.Protocol))
}
