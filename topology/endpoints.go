package topology

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// resolver finds the endpoints of services.
type resolver struct {
	snap     *Snapshot
	dnsNames map[string]string
	// byLabel and byAddr lead to indexes into snap.Pods, so that a selector
	// looks at candidates only.
	byLabel map[string][]int
	byAddr  map[netip.Addr]int
	slices  map[string][]*discoveryv1.EndpointSlice // by service key
	managed map[string]bool                         // services whose slices the API's own controller writes
	zones   map[string]string                       // by node
}

// sliceController is who writes the slices of services with selectors
// (endpointslice controller, pkg/controller/endpointslice controllerName).
const sliceController = "endpointslice-controller.k8s.io"

func (r *resolver) indexPods() {
	r.byLabel, r.byAddr, r.zones = map[string][]int{}, make(map[netip.Addr]int, len(r.snap.Pods)), map[string]string{}
	for i, p := range r.snap.Pods {
		r.byAddr[p.Address] = i
		for k, v := range p.Labels {
			key := labelKey(p.Namespace, k, v)
			r.byLabel[key] = append(r.byLabel[key], i)
		}
	}
	for _, n := range r.snap.Nodes {
		r.zones[n.Name] = n.Zone()
	}
}

func labelKey(namespace, k, v string) string { return namespace + "\x00" + k + "\x00" + v }

// indexSlices files the slices that the objects have under their services.
func (r *resolver) indexSlices(objs *Objects) {
	r.slices, r.managed = map[string][]*discoveryv1.EndpointSlice{}, map[string]bool{}
	for i := range objs.EndpointSlices {
		s := &objs.EndpointSlices[i]
		if svc := s.Labels[discoveryv1.LabelServiceName]; svc != "" && s.AddressType == discoveryv1.AddressTypeIPv4 {
			key := s.Namespace + "/" + svc
			r.slices[key] = append(r.slices[key], s)
			r.managed[key] = r.managed[key] || s.Labels[discoveryv1.LabelManagedBy] == sliceController
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
	key := s.Namespace + "/" + s.Name
	// With real components the API's slices alone say who answers.
	if !r.managed[key] && !r.snap.Components.Real() {
		out.Endpoints = r.selectedEndpoints(s, p)
	}
	for _, slice := range r.slices[key] {
		if s.Spec.ClusterIP != corev1.ClusterIPNone && forOthers(slice) {
			continue
		}
		out.Endpoints = append(out.Endpoints, r.manual(slice, p, out.Protocol)...)
	}
	out.Endpoints = oneOfEach(out.Endpoints)
	return out
}

// forOthers reports whether kube-proxy leaves the slice out: one of a headless
// service, or of another proxy's (cmd/kube-proxy/app/server.go, Run).
func forOthers(s *discoveryv1.EndpointSlice) bool {
	_, headless := s.Labels[corev1.IsHeadlessService]
	_, proxy := s.Labels[serviceProxyName]
	return headless || proxy
}

// oneOfEach sorts endpoints by address and port. Of those that have both in
// common the last one that is not going away counts, as for kube-proxy
// (pkg/proxy/endpointslicecache.go addEndpoints).
func oneOfEach(in []Endpoint) []Endpoint {
	slices.SortStableFunc(in, func(a, b Endpoint) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Port, b.Port)) })
	var out []Endpoint
	for _, e := range in {
		last := len(out) - 1
		switch {
		case last < 0 || out[last].Address != e.Address || out[last].Port != e.Port:
			out = append(out, e)
		case !e.Terminating:
			out[last] = e
		}
	}
	return out
}

// selectedEndpoints are the pods that the service selects, as the endpoint
// slice controller would write them.
func (r *resolver) selectedEndpoints(s *corev1.Service, p *corev1.ServicePort) []Endpoint {
	var out []Endpoint
	for _, i := range r.selected(s.Namespace, s.Spec.Selector) {
		pod := &r.snap.Pods[i]
		number, ok := targetPort(pod, p, protocolOf(p.Protocol))
		if !ok {
			continue
		}
		e := Endpoint{Address: pod.Address, Port: number, Node: pod.Node, Pod: pod.Key(), Ready: true, Serving: true}
		if pod.Subdomain == s.Name {
			e.Hostname = r.dnsNames[pod.Key()]
		}
		e.ForZones, e.ForNodes = r.hints(s, pod.Node)
		out = append(out, e)
	}
	return out
}

// hints are who an endpoint on a node is meant for by the service's
// trafficDistribution (k8s.io/endpointslice/trafficdist).
func (r *resolver) hints(s *corev1.Service, node string) (zones, nodes []string) {
	if s.Spec.TrafficDistribution == nil {
		return nil, nil
	}
	sameNode := false
	switch *s.Spec.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
	case corev1.ServiceTrafficDistributionPreferSameNode:
		sameNode = true
	default:
		return nil, nil
	}
	if zone := r.zones[node]; zone != "" {
		zones = []string{zone}
	}
	if sameNode {
		nodes = []string{node}
	}
	return zones, nodes
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

// manual are the endpoints of a slice for the port of the same name. A port
// without a number stands for all, which kube-proxy leaves out.
func (r *resolver) manual(s *discoveryv1.EndpointSlice, p *corev1.ServicePort, proto Protocol) []Endpoint {
	var out []Endpoint
	for _, sp := range s.Ports {
		name, sproto := "", TCPProtocol
		if sp.Name != nil {
			name = *sp.Name
		}
		if sp.Protocol != nil {
			sproto = protocolOf(*sp.Protocol)
		}
		if sp.Port == nil || name != p.Name || sproto != proto {
			continue
		}
		for i := range s.Endpoints {
			if e, ok := r.manualEndpoint(&s.Endpoints[i], int(*sp.Port)); ok {
				out = append(out, e)
			}
		}
	}
	return out
}

// manualEndpoint fills in what is known of an endpoint's first address; any
// further ones are equal to it, and kube-proxy takes the first. It is on the
// node that the slice names, whichever pod has the address. Unset conditions
// mean ready and serving (discovery/v1 EndpointConditions).
func (r *resolver) manualEndpoint(e *discoveryv1.Endpoint, port int) (Endpoint, bool) {
	addrs := addresses(e.Addresses)
	if len(addrs) == 0 {
		return Endpoint{}, false
	}
	out := Endpoint{
		Address: addrs[0], Port: port,
		Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
		Serving:     e.Conditions.Serving == nil || *e.Conditions.Serving,
		Terminating: e.Conditions.Terminating != nil && *e.Conditions.Terminating,
	}
	if e.Hostname != nil {
		out.Hostname = *e.Hostname
	}
	if i, ok := r.byAddr[out.Address]; ok {
		out.Pod = r.snap.Pods[i].Key()
	}
	if e.NodeName != nil {
		if _, ok := r.zones[*e.NodeName]; ok {
			out.Node = *e.NodeName
		}
	}
	if e.Hints != nil {
		for _, z := range e.Hints.ForZones {
			out.ForZones = append(out.ForZones, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			out.ForNodes = append(out.ForNodes, n.Name)
		}
	}
	return out, true
}

// Preferred are those of a service port's ready endpoints that a node uses by
// their hints: those for the node if every one has hints of nodes and one is for
// it, else those for its zone if likewise, else all (kube-proxy pkg/proxy/topology.go,
// topologyModeFromHints).
func Preferred(ready []Endpoint, n NodeState) []Endpoint {
	for _, h := range []struct {
		own string
		of  func(e Endpoint) []string
	}{
		{n.Name, func(e Endpoint) []string { return e.ForNodes }},
		{n.Zone(), func(e Endpoint) []string { return e.ForZones }},
	} {
		all := true
		var out []Endpoint
		for _, e := range ready {
			all = all && len(h.of(e)) > 0
			if slices.Contains(h.of(e), h.own) {
				out = append(out, e)
			}
		}
		if all && len(out) > 0 {
			return out
		}
	}
	return ready
}
