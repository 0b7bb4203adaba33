package lab

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"slipway/topology"
)

// Live is what the API of a lab with real components last said.
type Live struct {
	// Objects are the pods that have a node, the services with their addresses and
	// ports, and the endpoint slices. Workloads mean nothing here: their
	// controllers have made pods of them.
	Objects *topology.Objects `json:"objects"`
	// Sandboxes are the paths, on the machine, of the pods' network namespaces, by
	// the pods' keys. With full components only, where a container runtime makes
	// them.
	Sandboxes map[string]string `json:"sandboxes,omitempty"`
}

// planned are the objects that a plan is made of: the cluster file's and applied
// ones, or with real components what the API last said.
func (s *State) planned() *topology.Objects {
	depth := s.Cluster.Spec.Components
	if !depth.Real() {
		return s.objects()
	}
	if s.Live == nil || s.Live.Objects == nil {
		return &topology.Objects{}
	}
	o := s.Live.Objects
	return &topology.Objects{
		Namespaces: o.Namespaces, NetworkPolicies: o.NetworkPolicies, Services: o.Services, EndpointSlices: o.EndpointSlices,
		Pods: podsInLab(o.Pods, s.Cluster, depth == topology.ComponentsFull),
	}
}

// podsInLab leaves out pods that have no network of their own in the lab: those on
// no node of it, on their node's network, or at their end; and with addressed,
// those that the container runtime has not plugged in yet. Of two pods with one
// address the one that is not on its way out has it.
func podsInLab(pods []corev1.Pod, c *topology.Cluster, addressed bool) []corev1.Pod {
	var out []corev1.Pod
	for _, p := range pods {
		on := slices.ContainsFunc(c.Spec.Nodes, func(n topology.Node) bool { return n.Name == p.Spec.NodeName && n.InDatapath() })
		over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		if on && !over && !p.Spec.HostNetwork && (!addressed || p.Status.PodIP != "") {
			out = append(out, p)
		}
	}
	if !addressed {
		return out
	}
	slices.SortStableFunc(out, func(a, b corev1.Pod) int {
		return cmp.Or(leaving(a)-leaving(b), b.CreationTimestamp.Compare(a.CreationTimestamp.Time))
	})
	taken := map[string]bool{}
	return slices.DeleteFunc(out, func(p corev1.Pod) bool {
		was := taken[p.Status.PodIP]
		taken[p.Status.PodIP] = true
		return was
	})
}

func leaving(p corev1.Pod) int {
	if p.DeletionTimestamp != nil {
		return 1
	}
	return 0
}
