package realproxy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"slipway/topology"
)

// Object is an object of the Kubernetes API.
type Object interface {
	runtime.Object
	metav1.Object
}

// Objects are a snapshot's nodes, service range, services and endpoint slices,
// as the API server of such a cluster has them.
func Objects(s topology.Snapshot) []Object {
	var out []Object
	for _, n := range s.Nodes {
		out = append(out, node(n))
	}
	if r := s.Network.ServiceCIDR; r.IsValid() {
		out = append(out, &networkingv1.ServiceCIDR{
			TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"},
			ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{r.String()}},
		})
	}
	for i := range s.Services {
		out = append(out, service(&s.Services[i]))
		for _, e := range Slices(&s.Services[i]) {
			out = append(out, e)
		}
	}
	return out
}

func node(n topology.NodeState) *corev1.Node {
	out := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels},
	}
	if n.PodCIDR.IsValid() {
		out.Spec.PodCIDR, out.Spec.PodCIDRs = n.PodCIDR.String(), []string{n.PodCIDR.String()}
	}
	if n.Address.IsValid() {
		out.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Address.String()}}
	}
	return out
}

func service(s *topology.Service) *corev1.Service {
	out := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name},
	}
	if s.ProxyName != "" {
		out.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": s.ProxyName}
	}
	spec := &out.Spec
	*spec = corev1.ServiceSpec{
		Type: corev1.ServiceType(s.Type), ExternalName: s.ExternalName, Selector: s.Selector,
		ExternalIPs: texts(s.ExternalIPs), LoadBalancerSourceRanges: texts(s.SourceRanges),
		HealthCheckNodePort: int32(s.HealthCheckNodePort), PublishNotReadyAddresses: s.PublishNotReady,
		SessionAffinity:       corev1.ServiceAffinityNone,
		InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyCluster),
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
	}
	switch {
	case s.Headless:
		spec.ClusterIP = corev1.ClusterIPNone
	case s.ClusterIP.IsValid():
		spec.ClusterIP = s.ClusterIP.String()
	}
	if spec.ClusterIP != "" {
		spec.ClusterIPs, spec.IPFamilies = []string{spec.ClusterIP}, []corev1.IPFamily{corev1.IPv4Protocol}
		if s.ClusterIP.Is6() {
			spec.IPFamilies[0] = corev1.IPv6Protocol
		}
	}
	if s.InternalPolicyLocal {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	}
	if s.ExternalPolicyLocal {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	if s.AffinityClientIP {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		if s.AffinitySeconds != 0 {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(s.AffinitySeconds))}}
		}
	}
	for _, a := range s.LoadBalancerIPs {
		out.Status.LoadBalancer.Ingress = append(out.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String()})
	}
	for _, p := range s.Ports {
		spec.Ports = append(spec.Ports, corev1.ServicePort{
			Name: p.Name, Protocol: corev1.Protocol(p.Protocol), Port: int32(p.Port), NodePort: int32(p.NodePort),
		})
	}
	return out
}

func texts[T fmt.Stringer](in []T) []string {
	var out []string
	for _, x := range in {
		out = append(out, x.String())
	}
	return out
}

// Slices are a service's endpoint slices: one for each of its ports and each
// number that the port has in pods, of IPv4 addresses only, like the services.
func Slices(s *topology.Service) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for i := range s.Ports {
		p := &s.Ports[i]
		byNumber := map[int]*discoveryv1.EndpointSlice{}
		for _, e := range p.Endpoints {
			if !e.Address.Is4() {
				continue
			}
			slice := byNumber[e.Port]
			if slice == nil {
				slice = emptySlice(s, p, i, e.Port)
				byNumber[e.Port] = slice
				out = append(out, slice)
			}
			slice.Endpoints = append(slice.Endpoints, endpoint(e))
		}
	}
	return out
}

func emptySlice(s *topology.Service, p *topology.ServicePort, index, number int) *discoveryv1.EndpointSlice {
	labels := map[string]string{discoveryv1.LabelServiceName: s.Name}
	if s.Headless {
		labels[corev1.IsHeadlessService] = ""
	}
	return &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: s.Namespace, Name: fmt.Sprintf("%s-%d-%d", s.Name, index, number), Labels: labels},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new(p.Name), Protocol: new(corev1.Protocol(p.Protocol)), Port: new(int32(number))}},
	}
}

func endpoint(e topology.Endpoint) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses:  []string{e.Address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: new(e.Ready), Serving: new(e.Serving), Terminating: new(e.Terminating)},
	}
	if e.Node != "" {
		out.NodeName = new(e.Node)
	}
	if len(e.ForZones)+len(e.ForNodes) > 0 {
		out.Hints = &discoveryv1.EndpointHints{}
		for _, z := range e.ForZones {
			out.Hints.ForZones = append(out.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
		for _, n := range e.ForNodes {
			out.Hints.ForNodes = append(out.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
	}
	return out
}
