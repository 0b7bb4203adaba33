package topology

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// dnsLabel is a DNS label as RFC 1123 §2.1 has it, lower case.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// isDNSSubdomain reports whether s is a Kubernetes object name: labels joined
// by dots, at most 253 characters (apimachinery pkg/util/validation).
func isDNSSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if !dnsLabel.MatchString(label) {
			return false
		}
	}
	return true
}

// meta checks the name and namespace and fills in the default namespace.
func (l *manifestLoader) meta(path, kind string, o metav1.Object) {
	name, ns := o.GetName(), o.GetNamespace()
	valid := isDNSSubdomain(name)
	if kind == "Service" || kind == "Namespace" {
		valid = dnsLabel.MatchString(name) // RFC 1035 labels, both
	}
	switch {
	case name == "":
		l.report(path+".metadata.name", "missing-field", "%s needs a name", kind)
	case !valid:
		l.report(path+".metadata.name", "bad-name", "%q is no DNS name: lower-case letters, digits and - only", shorten(name))
	}
	switch {
	case kind == "Namespace":
		o.SetNamespace("")
	case ns == "":
		o.SetNamespace("default")
	case !dnsLabel.MatchString(ns):
		l.report(path+".metadata.namespace", "bad-name", "%q is no DNS label", shorten(ns))
	}
}

func (l *manifestLoader) pod(path string, p *corev1.Pod) { l.podSpec(path+".spec", &p.Spec) }

func (l *manifestLoader) deployment(path string, d *appsv1.Deployment) {
	l.workload(path, &d.Spec.Selector, &d.Spec.Template, d.Spec.Replicas)
}

func (l *manifestLoader) replicaSet(path string, r *appsv1.ReplicaSet) {
	l.workload(path, &r.Spec.Selector, &r.Spec.Template, r.Spec.Replicas)
}

func (l *manifestLoader) daemonSet(path string, d *appsv1.DaemonSet) {
	l.workload(path, &d.Spec.Selector, &d.Spec.Template, nil)
}

func (l *manifestLoader) statefulSet(path string, s *appsv1.StatefulSet) {
	l.workload(path, &s.Spec.Selector, &s.Spec.Template, s.Spec.Replicas)
}

// maxReplicas bounds one workload: a lab is one machine.
const maxReplicas = 100_000

// workload checks what all controllers have in common. A selector that is left
// out is the template's labels, as extensions/v1beta1 had it.
func (l *manifestLoader) workload(path string, sel **metav1.LabelSelector, t *corev1.PodTemplateSpec, replicas *int32) {
	if replicas != nil && (*replicas < 0 || *replicas > maxReplicas) {
		l.report(path+".spec.replicas", "out-of-range", "%d replicas; want 0 to %d", *replicas, maxReplicas)
	}
	if *sel == nil {
		if !l.legacy {
			l.report(path+".spec.selector", "missing-field", "spec.selector is required")
		}
		*sel = &metav1.LabelSelector{MatchLabels: t.Labels}
	}
	s, err := metav1.LabelSelectorAsSelector(*sel)
	switch {
	case err != nil:
		l.report(path+".spec.selector", "bad-selector", "%v", err)
	case !s.Matches(labels.Set(t.Labels)):
		l.report(path+".spec.selector", "selector-mismatch", "the selector does not match the template's labels")
	}
	l.podSpec(path+".spec.template.spec", &t.Spec)
}

// podSpec checks containers and ports, and warns of what a lab does not do.
func (l *manifestLoader) podSpec(path string, s *corev1.PodSpec) {
	if len(s.Containers) == 0 {
		l.report(path+".containers", "missing-field", "a pod needs at least one container")
	}
	names := map[string]bool{}
	for i, c := range s.Containers {
		cp := indexPath(path+".containers", i)
		switch {
		case c.Name == "":
			l.report(cp, "missing-field", "a container needs a name")
		case names[c.Name]:
			l.report(cp+".name", "duplicate-name", "two containers are called %q", c.Name)
		}
		names[c.Name] = true
		for j, p := range c.Ports {
			pp := indexPath(cp+".ports", j)
			if p.ContainerPort < 1 || p.ContainerPort > 65535 {
				l.report(pp+".containerPort", "bad-port", "%d is no port; want 1 to 65535", p.ContainerPort)
			}
			l.protocol(pp, p.Protocol)
		}
	}
	if s.HostNetwork {
		l.warn(path+".hostNetwork", "not-run", "pods in the node's network are not run by a lab; skipped")
	}
	if s.Affinity != nil {
		l.warn(path+".affinity", "ignored-field", "affinity is ignored; use nodeSelector or nodeName")
	}
}

func (l *manifestLoader) protocol(path string, p corev1.Protocol) {
	switch Protocol(p) {
	case "", TCPProtocol, UDPProtocol, SCTPProtocol:
	default:
		l.report(path+".protocol", "unknown-value", "%q is none of TCP, UDP, SCTP", shorten(string(p)))
	}
}

func (l *manifestLoader) service(path string, s *corev1.Service) {
	spec := path + ".spec"
	switch ServiceType(s.Spec.Type) {
	case "", ClusterIP, NodePort, LoadBalanced:
		if len(s.Spec.Ports) == 0 && s.Spec.ClusterIP != corev1.ClusterIPNone {
			l.report(spec+".ports", "missing-field", "a service needs at least one port")
		}
	case ExternalName:
		if !isDNSSubdomain(strings.TrimSuffix(s.Spec.ExternalName, ".")) {
			l.report(spec+".externalName", "bad-name", "an ExternalName service needs a DNS name in externalName")
		}
	default:
		l.report(spec+".type", "unknown-value", "%q is none of ClusterIP, NodePort, LoadBalancer, ExternalName", shorten(string(s.Spec.Type)))
	}
	l.servicePorts(spec, s)
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone && !isIPv4(ip) {
		l.report(spec+".clusterIP", "bad-address", "%q is no IPv4 address", shorten(ip))
	}
	for i, ip := range s.Spec.ExternalIPs {
		if !isIPv4(ip) {
			l.report(indexPath(spec+".externalIPs", i), "bad-address", "%q is no IPv4 address", shorten(ip))
		}
	}
	for i, ip := range serviceIngressIPs(s) {
		if !isIPv4(ip) {
			l.report(spec, "bad-address", "load balancer address %d, %q, is no IPv4 address", i+1, shorten(ip))
		}
	}
	for i, text := range s.Spec.LoadBalancerSourceRanges {
		if _, err := netip.ParsePrefix(strings.TrimSpace(text)); err != nil {
			l.report(indexPath(spec+".loadBalancerSourceRanges", i), "bad-cidr", "%q is no range of addresses", shorten(text))
		}
	}
	oneOf(l, spec+".sessionAffinity", string(s.Spec.SessionAffinity), "None", "ClientIP")
	oneOf(l, spec+".externalTrafficPolicy", string(s.Spec.ExternalTrafficPolicy), "Cluster", "Local")
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		oneOf(l, spec+".internalTrafficPolicy", string(*p), "Cluster", "Local")
	}
}

func oneOf(l *manifestLoader, path, got string, words ...string) {
	if got != "" && !contains(words, got) {
		l.report(path, "unknown-value", "%q is none of %s%s", shorten(got), strings.Join(words, ", "), suggest(got, words))
	}
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

func (l *manifestLoader) servicePorts(spec string, s *corev1.Service) {
	names, numbers := map[string]int{}, map[string]int{}
	for i, p := range s.Spec.Ports {
		pp := indexPath(spec+".ports", i)
		if p.Port < 1 || p.Port > 65535 {
			l.report(pp+".port", "bad-port", "%d is no port; want 1 to 65535", p.Port)
		}
		if t := p.TargetPort; t.IntVal < 0 || t.IntVal > 65535 {
			l.report(pp+".targetPort", "bad-port", "%d is no port; want 1 to 65535", t.IntVal)
		}
		if p.NodePort < 0 || p.NodePort > 65535 {
			l.report(pp+".nodePort", "bad-port", "%d is no port; want 1 to 65535", p.NodePort)
		}
		if t := ServiceType(s.Spec.Type); p.NodePort != 0 && t != NodePort && t != LoadBalanced {
			l.report(pp+".nodePort", "conflicting-fields", "nodePort needs type NodePort or LoadBalancer")
		}
		l.protocol(pp, p.Protocol)
		key := fmt.Sprintf("%d/%s", p.Port, protocolOf(p.Protocol))
		if first, dup := numbers[key]; dup {
			l.report(pp, "duplicate-port", "port %s is that of spec.ports[%d]", key, first)
		}
		numbers[key] = i
		switch first, dup := names[p.Name]; {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			l.report(pp, "missing-field", "with several ports each needs a name")
		case dup:
			l.report(pp+".name", "duplicate-name", "port name %q is that of spec.ports[%d]", p.Name, first)
		}
		names[p.Name] = i
	}
}

// protocolOf is the protocol with Kubernetes' default.
func protocolOf(p corev1.Protocol) Protocol {
	if p == "" {
		return TCPProtocol
	}
	return Protocol(p)
}

func (l *manifestLoader) endpointSlice(path string, s *discoveryv1.EndpointSlice) {
	if s.AddressType != discoveryv1.AddressTypeIPv4 {
		l.warn(path+".addressType", "ignored-field", "only IPv4 endpoints are used; this slice is ignored")
		return
	}
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			if !isIPv4(a) {
				l.report(indexPath(indexPath(path+".endpoints", i)+".addresses", j), "bad-address", "%q is no IPv4 address", shorten(a))
			}
		}
	}
	for i, p := range s.Ports {
		if p.Port != nil && (*p.Port < 1 || *p.Port > 65535) {
			l.report(indexPath(path+".ports", i)+".port", "bad-port", "%d is no port; want 1 to 65535", *p.Port)
		}
	}
}

func (l *manifestLoader) endpointsAddresses(path string, e *corev1.Endpoints) { //nolint:staticcheck // see endpoints
	for i, sub := range e.Subsets {
		sp := indexPath(path+".subsets", i)
		for j, a := range sub.Addresses {
			if !isIPv4(a.IP) {
				l.report(indexPath(sp+".addresses", j)+".ip", "bad-address", "%q is no IPv4 address", shorten(a.IP))
			}
		}
		for j, a := range sub.NotReadyAddresses {
			if !isIPv4(a.IP) {
				l.report(indexPath(sp+".notReadyAddresses", j)+".ip", "bad-address", "%q is no IPv4 address", shorten(a.IP))
			}
		}
	}
}

func (l *manifestLoader) networkPolicy(path string, _ *networkingv1.NetworkPolicy) {
	l.warn(path+".spec", "not-enforced", "network policies are kept, but not enforced yet")
}
