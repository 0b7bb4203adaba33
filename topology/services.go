package topology

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// defaultAffinitySeconds is core/v1 DefaultClientIPServiceAffinitySeconds.
const defaultAffinitySeconds = 10800

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
// what the manifest's status or the older loadBalancerIP says.
func serviceIngressIPs(s *corev1.Service) []string {
	var out []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			out = append(out, in.IP)
		}
	}
	if ip := s.Spec.LoadBalancerIP; ip != "" && !contains(out, ip) { //nolint:staticcheck // deprecated, still used
		out = append(out, ip)
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
	}
	if wantsHealthCheck(s) {
		out.HealthCheckNodePort = a.port(healthKey(s), TCPProtocol)
	}
}

// resolver finds the endpoints of services.
type resolver struct {
	snap     *Snapshot
	dnsNames map[string]string
	// byLabel and byAddr lead to indexes into snap.Pods, so that a selector
	// looks at candidates only.
	byLabel map[string][]int
	byAddr  map[netip.Addr]int
	slices  map[string][]*discoveryv1.EndpointSlice // by service key
	nodes   map[string]bool
}

func (r *resolver) indexPods() {
	r.byLabel, r.byAddr, r.nodes = map[string][]int{}, make(map[netip.Addr]int, len(r.snap.Pods)), map[string]bool{}
	for i, p := range r.snap.Pods {
		r.byAddr[p.Address] = i
		for k, v := range p.Labels {
			key := labelKey(p.Namespace, k, v)
			r.byLabel[key] = append(r.byLabel[key], i)
		}
	}
	for _, n := range r.snap.Nodes {
		r.nodes[n.Name] = true
	}
}

func labelKey(namespace, k, v string) string { return namespace + "\x00" + k + "\x00" + v }

// indexSlices files the user's own slices under their services.
func (r *resolver) indexSlices(objs *Objects) {
	r.slices = map[string][]*discoveryv1.EndpointSlice{}
	for i := range objs.EndpointSlices {
		s := &objs.EndpointSlices[i]
		if svc := s.Labels[discoveryv1.LabelServiceName]; svc != "" && s.AddressType == discoveryv1.AddressTypeIPv4 {
			key := s.Namespace + "/" + svc
			r.slices[key] = append(r.slices[key], s)
		}
	}
}

// selected lists the pods that a selector matches; an empty one matches none.
func (r *resolver) selected(namespace string, selector map[string]string) []int {
	var fewest []int
	first := true
	for k, v := range selector {
		if c := r.byLabel[labelKey(namespace, k, v)]; first || len(c) < len(fewest) {
			fewest, first = c, false
		}
	}
	var out []int
	for _, i := range fewest {
		if matches(selector, r.snap.Pods[i].Labels) {
			out = append(out, i)
		}
	}
	return out
}

// port resolves one port of a service.
func (r *resolver) port(s *corev1.Service, p *corev1.ServicePort, nodePort int) ServicePort {
	out := ServicePort{
		Name: p.Name, Protocol: protocolOf(p.Protocol), Port: int(p.Port), NodePort: nodePort,
		TargetPort: targetText(p),
	}
	for _, i := range r.selected(s.Namespace, s.Spec.Selector) {
		pod := &r.snap.Pods[i]
		number, ok := targetPort(pod, p, out.Protocol)
		if !ok {
			continue
		}
		e := Endpoint{Address: pod.Address, Port: number, Node: pod.Node, Pod: pod.Key(), Ready: true, Serving: true}
		if pod.Subdomain == s.Name {
			e.Hostname = r.dnsNames[pod.Key()]
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	for _, slice := range r.slices[s.Namespace+"/"+s.Name] {
		out.Endpoints = append(out.Endpoints, r.manual(slice, p, out.Protocol)...)
	}
	slices.SortFunc(out.Endpoints, func(a, b Endpoint) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port)) })
	out.Endpoints = slices.CompactFunc(out.Endpoints, func(a, b Endpoint) bool { return a.Address == b.Address && a.Port == b.Port })
	return out
}

// targetText is the target port as written; left out, it is the port itself.
func targetText(p *corev1.ServicePort) string {
	if p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal == 0 {
		return strconv.Itoa(int(p.Port))
	}
	return p.TargetPort.String()
}

// targetPort finds the port on one pod. A name is looked up among the pod's
// own ports; a pod without it is no endpoint.
func targetPort(pod *Pod, p *corev1.ServicePort, proto Protocol) (int, bool) {
	if p.TargetPort.Type == intstr.Int {
		if p.TargetPort.IntVal == 0 {
			return int(p.Port), true
		}
		return int(p.TargetPort.IntVal), true
	}
	for _, cp := range pod.Ports {
		if cp.Name == p.TargetPort.StrVal && cp.Protocol == proto {
			return cp.Port, true
		}
	}
	return 0, false
}

// manual are the endpoints of a slice that the user wrote, for the port of the
// same name.
func (r *resolver) manual(s *discoveryv1.EndpointSlice, p *corev1.ServicePort, proto Protocol) []Endpoint {
	var out []Endpoint
	for _, sp := range s.Ports {
		name, number, sproto := "", int(p.Port), TCPProtocol
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Port != nil {
			number = int(*sp.Port)
		}
		if sp.Protocol != nil {
			sproto = protocolOf(*sp.Protocol)
		}
		if name != p.Name || sproto != proto {
			continue
		}
		for _, e := range s.Endpoints {
			out = append(out, r.manualEndpoints(e, number)...)
		}
	}
	return out
}

// manualEndpoints fills in what is known of an address: the pod that has it,
// else the node that the slice names. Unset conditions mean ready
// (discovery/v1 EndpointConditions).
func (r *resolver) manualEndpoints(e discoveryv1.Endpoint, port int) []Endpoint {
	ready := e.Conditions.Ready == nil || *e.Conditions.Ready
	serving := e.Conditions.Serving == nil && ready || e.Conditions.Serving != nil && *e.Conditions.Serving
	var out []Endpoint
	for _, a := range addresses(e.Addresses) {
		ep := Endpoint{
			Address: a, Port: port, Ready: ready, Serving: serving,
			Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
		}
		if e.Hostname != nil {
			ep.Hostname = *e.Hostname
		}
		if i, ok := r.byAddr[a]; ok {
			ep.Pod, ep.Node = r.snap.Pods[i].Key(), r.snap.Pods[i].Node
		} else if e.NodeName != nil && r.nodes[*e.NodeName] {
			ep.Node = *e.NodeName
		}
		out = append(out, ep)
	}
	return out
}

// healthKey names a service's health check port in the allocation.
func healthKey(s *corev1.Service) string { return s.Namespace + "/" + s.Name + ":healthcheck" }

func nodePortKey(s *corev1.Service, p *corev1.ServicePort) string {
	return fmt.Sprintf("%s/%s:%d/%s", s.Namespace, s.Name, p.Port, protocolOf(p.Protocol))
}
