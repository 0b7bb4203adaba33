package topology

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podTemplate is what the pods of one workload have in common.
type podTemplate struct {
	namespace string
	owner     string // "Deployment/nginx"
	labels    map[string]string
	spec      *corev1.PodSpec
	ports     []ContainerPort
	// names of the pods to make; for a DaemonSet the node decides.
	names     []string
	daemonSet string // its name
	stateful  bool
	kind      PodKind // empty: echo
	// address is what a pod of an API that runs on a node has already.
	address netip.Addr
}

// templates lists what has to run, in the order of declaration.
func templates(o *Objects) []podTemplate {
	var out []podTemplate
	keep := func(t podTemplate) {
		if !t.spec.HostNetwork { // warned of by LoadManifests
			t.ports = containerPorts(t.spec)
			out = append(out, t)
		}
	}
	for i := range o.Pods {
		p := &o.Pods[i]
		keep(podTemplate{
			namespace: p.Namespace, owner: controllerOf(p), labels: p.Labels, spec: &p.Spec, names: []string{p.Name},
			kind: PodKind(p.Annotations[PodKindAnnotation]), address: addressOf(p),
		})
	}
	for i := range o.Deployments {
		d := &o.Deployments[i]
		t := &d.Spec.Template
		prefix := d.Name + "-" + safeHash(10, templateText(t)) + "-"
		keep(podTemplate{
			namespace: d.Namespace, owner: "Deployment/" + d.Name, labels: t.Labels, spec: &t.Spec,
			names: replicaNames(d.Namespace, prefix, replicas(d.Spec.Replicas)),
		})
	}
	for i := range o.ReplicaSets {
		r := &o.ReplicaSets[i]
		t := &r.Spec.Template
		keep(podTemplate{
			namespace: r.Namespace, owner: "ReplicaSet/" + r.Name, labels: t.Labels, spec: &t.Spec,
			names: replicaNames(r.Namespace, r.Name+"-", replicas(r.Spec.Replicas)),
		})
	}
	for i := range o.StatefulSets {
		s := &o.StatefulSets[i]
		t := podTemplate{
			namespace: s.Namespace, owner: "StatefulSet/" + s.Name,
			labels: s.Spec.Template.Labels, spec: withSubdomain(s.Spec.Template.Spec, s.Spec.ServiceName), stateful: true,
		}
		for n := range replicas(s.Spec.Replicas) {
			t.names = append(t.names, s.Name+"-"+strconv.Itoa(n))
		}
		keep(t)
	}
	for i := range o.DaemonSets {
		d := &o.DaemonSets[i]
		t := &d.Spec.Template
		keep(podTemplate{
			namespace: d.Namespace, owner: "DaemonSet/" + d.Name, labels: t.Labels, spec: &t.Spec, daemonSet: d.Name,
		})
	}
	return out
}

// addressOf is the IPv4 address of a pod that is on a node; invalid if it has none.
func addressOf(p *corev1.Pod) netip.Addr {
	a, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil || p.Spec.NodeName == "" || !a.Is4() {
		return netip.Addr{}
	}
	return a
}

// controllerOf names the workload that a pod is of which a controller of the API
// made: of a Deployment's pods the Deployment, which a ReplicaSet has in its name
// (k8s.io/kubernetes pkg/controller/deployment/sync.go, getNewReplicaSet).
func controllerOf(p *corev1.Pod) string {
	o := metav1.GetControllerOfNoCopy(p)
	if o == nil {
		return ""
	}
	hash := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if name, ok := strings.CutSuffix(o.Name, "-"+hash); ok && hash != "" && o.Kind == "ReplicaSet" {
		return "Deployment/" + name
	}
	return o.Kind + "/" + o.Name
}

// withSubdomain names the governing service, as the StatefulSet controller
// does when it makes a pod.
func withSubdomain(s corev1.PodSpec, service string) *corev1.PodSpec {
	if service != "" {
		s.Subdomain = service
	}
	return &s
}

func replicas(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

// templateText is what a ReplicaSet's hash is computed from: a changed
// template makes new pods, a changed replica count does not.
func templateText(t *corev1.PodTemplateSpec) string {
	text, err := json.Marshal(t)
	if err != nil { // plain data always marshals
		return fmt.Sprintf("%+v", t)
	}
	return string(text)
}

// safeLetters are those of Kubernetes' generated names: no vowels and no
// look-alikes (apimachinery pkg/util/rand).
const safeLetters = "bcdfghjklmnpqrstvwxz2456789"

// safeHash is n safe letters that depend on the given words only.
func safeHash(n int, words ...string) string {
	h := fnv.New64a()
	for _, w := range words {
		_, _ = h.Write([]byte(w))
		_, _ = h.Write([]byte{0})
	}
	x := h.Sum64()
	x ^= x >> 32 // FNV's low bits alone are weak for short words
	out := make([]byte, n)
	for i := range out {
		out[i] = safeLetters[x%uint64(len(safeLetters))]
		x /= uint64(len(safeLetters))
	}
	return string(out)
}

// replicaNames are the stable names of a workload's pods: the n-th depends on
// those before it only where two hashes meet.
func replicaNames(namespace, prefix string, count int) []string {
	names, used := make([]string, 0, count), make(map[string]bool, count)
	for i := range count {
		suffix := safeHash(5, namespace, prefix, strconv.Itoa(i))
		for again := 0; used[suffix]; again++ {
			suffix = safeHash(5, namespace, prefix, strconv.Itoa(i), strconv.Itoa(again))
		}
		used[suffix] = true
		names = append(names, prefix+suffix)
	}
	return names
}

// containerPorts collects the declared ports of all containers, each once.
func containerPorts(s *corev1.PodSpec) []ContainerPort {
	var out []ContainerPort
	for _, c := range s.Containers {
		for _, p := range c.Ports {
			cp := ContainerPort{Name: p.Name, Port: int(p.ContainerPort), Protocol: protocolOf(p.Protocol)}
			known := false
			for _, o := range out {
				known = known || o.Port == cp.Port && o.Protocol == cp.Protocol && (cp.Name == "" || o.Name == cp.Name)
			}
			if !known {
				out = append(out, cp)
			}
		}
	}
	return out
}

// newPod makes the pod of a template, not placed yet.
func (t *podTemplate) newPod(lab, name string) Pod {
	p := Pod{
		Namespace: t.namespace, Name: name, Labels: t.labels, Owner: t.owner, Ports: t.ports,
		Hostname: t.spec.Hostname, Subdomain: t.spec.Subdomain, Kind: PodEcho,
		MAC: derivedMAC(lab, t.namespace, name), Address: t.address,
	}
	if t.kind != "" {
		p.Kind = t.kind
	}
	if p.Hostname == "" {
		p.Hostname = name[:min(len(name), 63)] // HOST_NAME_MAX is 64
	}
	return p
}

// dnsName is the name under which the pod has a record of its own below its
// subdomain; empty if it has none (k8s.io/api core/v1 PodSpec.Hostname).
func (t *podTemplate) dnsName(p Pod) string {
	if t.spec.Subdomain != "" && (t.spec.Hostname != "" || t.stateful) {
		return p.Hostname
	}
	return ""
}
