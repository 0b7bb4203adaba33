package kubeproxy

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"slipway/lab/bench/realproxy"
	"slipway/topology"
)

// apiObjects are the services and endpoint slices that an API server and its
// controllers have of objects: with the API's defaults, the numbers that the
// snapshot gives, and slices of the pods that services select. Nothing else of
// the snapshot is looked at, so that what it says of endpoints is not taken from
// itself.
func apiObjects(objs *topology.Objects, s topology.Snapshot) []realproxy.Object {
	var out []realproxy.Object
	managed := map[string]bool{}
	for i := range objs.EndpointSlices {
		e := objs.EndpointSlices[i].DeepCopy()
		e.TypeMeta = metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}
		for j := range e.Ports {
			p := &e.Ports[j]
			p.Name, p.Protocol = either(p.Name, ""), either(p.Protocol, corev1.ProtocolTCP)
		}
		if e.Labels[discoveryv1.LabelManagedBy] == "endpointslice-controller.k8s.io" {
			managed[e.Namespace+"/"+e.Labels[discoveryv1.LabelServiceName]] = true
		}
		out = append(out, e)
	}
	for i := range objs.Services {
		svc := objs.Services[i].DeepCopy()
		svc.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		defaults(svc)
		number(svc, s)
		out = append(out, svc)
		if len(svc.Spec.Selector) > 0 && svc.Spec.Type != corev1.ServiceTypeExternalName && !managed[svc.Namespace+"/"+svc.Name] {
			for _, e := range controllers(svc, objs, s) {
				out = append(out, e)
			}
		}
	}
	return out
}

func either[T any](have *T, or T) *T {
	if have != nil {
		return have
	}
	return &or
}

// defaults fills in what the API server does (pkg/apis/core/v1/defaults.go,
// SetDefaults_Service).
func defaults(svc *corev1.Service) {
	spec := &svc.Spec
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP && spec.SessionAffinityConfig == nil {
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(corev1.DefaultClientIPServiceAffinitySeconds)}}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	spec.InternalTrafficPolicy = either(spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	if spec.ExternalTrafficPolicy == "" && (spec.Type != corev1.ServiceTypeClusterIP || len(spec.ExternalIPs) > 0) {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
}

// number copies the numbers that were given out: addresses and ports.
func number(svc *corev1.Service, s topology.Snapshot) {
	i := slices.IndexFunc(s.Services, func(x topology.Service) bool { return x.Key() == svc.Namespace+"/"+svc.Name })
	has := &s.Services[i]
	spec := &svc.Spec
	switch {
	case has.ClusterIP.IsValid():
		spec.ClusterIP, spec.IPFamilies = has.ClusterIP.String(), []corev1.IPFamily{corev1.IPv4Protocol}
		spec.ClusterIPs = []string{spec.ClusterIP}
	case spec.ClusterIP == corev1.ClusterIPNone:
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
	}
	for i := range has.Ports {
		spec.Ports[i].NodePort = int32(has.Ports[i].NodePort)
	}
	spec.HealthCheckNodePort = int32(has.HealthCheckNodePort)
}

// controllers are the slices that the endpoint slice controller writes of a
// service with a selector: the pods that have the same number for each port are
// in one (k8s.io/endpointslice, reconciler.go), ports that a pod has not are left
// out (utils.go, FindPort).
func controllers(svc *corev1.Service, objs *topology.Objects, s topology.Snapshot) []*discoveryv1.EndpointSlice {
	bySet := map[string]*discoveryv1.EndpointSlice{}
	for i := range objs.Pods {
		pod := &objs.Pods[i]
		if pod.Namespace != svc.Namespace || !labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			continue
		}
		at := slices.IndexFunc(s.Pods, func(x topology.Pod) bool { return x.Key() == pod.Namespace+"/"+pod.Name })
		if at < 0 { // a pod in its node's network, which labs do not run
			continue
		}
		var ports []discoveryv1.EndpointPort
		set := ""
		for _, p := range svc.Spec.Ports {
			if n := podPort(pod, p); n != 0 {
				ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &n})
				set += fmt.Sprintf(" %s=%d/%s", p.Name, n, p.Protocol)
			}
		}
		if bySet[set] == nil {
			bySet[set] = &discoveryv1.EndpointSlice{
				TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
				ObjectMeta: metav1.ObjectMeta{
					Namespace: svc.Namespace, Name: fmt.Sprintf("%s-%d", svc.Name, len(bySet)),
					Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
				},
				AddressType: discoveryv1.AddressTypeIPv4, Ports: ports,
			}
			for _, l := range []string{corev1.IsHeadlessService, "service.kubernetes.io/service-proxy-name"} { // labels are copied
				if v, ok := svc.Labels[l]; ok || l == corev1.IsHeadlessService && svc.Spec.ClusterIP == corev1.ClusterIPNone {
					bySet[set].Labels[l] = v
				}
			}
		}
		node, _ := s.NodeByName(s.Pods[at].Node)
		bySet[set].Endpoints = append(bySet[set].Endpoints, discoveryv1.Endpoint{
			Addresses: []string{s.Pods[at].Address.String()}, NodeName: &node.Name, Hints: distribution(svc, node),
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		})
	}
	return slices.SortedFunc(maps.Values(bySet), func(a, b *discoveryv1.EndpointSlice) int { return len(a.Name) - len(b.Name) })
}

// podPort is a service port's number on a pod; 0 if it has none.
func podPort(pod *corev1.Pod, p corev1.ServicePort) int32 {
	if p.TargetPort.Type == intstr.Int {
		return p.TargetPort.IntVal
	}
	for _, c := range pod.Spec.Containers {
		for _, cp := range c.Ports {
			if cp.Name == p.TargetPort.StrVal && (cp.Protocol == p.Protocol || cp.Protocol == "" && p.Protocol == corev1.ProtocolTCP) {
				return cp.ContainerPort
			}
		}
	}
	return 0
}

// distribution are the hints of an endpoint on a node (k8s.io/endpointslice,
// trafficdist/trafficdist.go).
func distribution(svc *corev1.Service, node topology.NodeState) *discoveryv1.EndpointHints {
	if svc.Spec.TrafficDistribution == nil {
		return nil
	}
	out := &discoveryv1.EndpointHints{}
	if zone := node.Labels[corev1.LabelTopologyZone]; zone != "" {
		out.ForZones = []discoveryv1.ForZone{{Name: zone}}
	}
	if *svc.Spec.TrafficDistribution == corev1.ServiceTrafficDistributionPreferSameNode {
		out.ForNodes = []discoveryv1.ForNode{{Name: node.Name}}
	}
	return out
}
