package topology

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// InDatapath reports whether the machine is a node of the cluster: it has a
// lease, routes to pods and service rules. Those that do nothing but run etcd or
// balance the API servers are none, as with kubeadm's external etcd.
func (n Node) InDatapath() bool {
	return slices.ContainsFunc(n.Roles, func(r Role) bool { return r != RoleEtcd && r != RoleLoadBalancer })
}

// RunsPods reports whether pods are placed on the node without asking for it:
// it is a worker. Other nodes of the datapath are tainted.
func (n Node) RunsPods() bool { return n.HasRole(RoleWorker) }

// Well-known label prefixes (k8s.io/api core/v1 well_known_labels.go, kubeadm).
const rolePrefix = "node-role.kubernetes.io/"

// nodeLabels are the node's own labels and those that the kubelet and kubeadm
// would set.
func nodeLabels(n Node) map[string]string {
	out := map[string]string{
		corev1.LabelHostname:      n.Name,
		corev1.LabelOSStable:      "linux",
		corev1.LabelArchStable:    runtime.GOARCH,
		"beta.kubernetes.io/os":   "linux",
		"beta.kubernetes.io/arch": runtime.GOARCH,
	}
	for _, r := range n.Roles {
		out[rolePrefix+string(r)] = ""
	}
	maps.Copy(out, n.Labels)
	return out
}

// placer decides on which node each pod runs.
type placer struct {
	nodes  []NodeState
	index  map[string]int
	total  []int // pods a node
	tolAll bool  // no node is a worker: taints do not count
}

func newPlacer(nodes []NodeState) *placer {
	p := &placer{nodes: nodes, index: make(map[string]int, len(nodes)), total: make([]int, len(nodes)), tolAll: true}
	for i, n := range nodes {
		p.index[n.Name] = i
		p.tolAll = p.tolAll && !n.RunsPods()
	}
	return p
}

// eligible lists the nodes on which a template's pods may run.
func (p *placer) eligible(t *podTemplate) ([]int, error) {
	if name := t.spec.NodeName; name != "" {
		i, ok := p.index[name]
		if !ok {
			return nil, fmt.Errorf("nodeName %q: no such node", name)
		}
		if !p.nodes[i].InDatapath() {
			return nil, fmt.Errorf("nodeName %q: it is no node of the cluster: only control planes and workers run pods", name)
		}
		return []int{i}, nil
	}
	var out []int
	for i, n := range p.nodes {
		if n.InDatapath() && matches(t.spec.NodeSelector, n.Labels) && (p.tolAll || tolerates(t.spec.Tolerations, n.Node)) {
			out = append(out, i)
		}
	}
	if len(out) == 0 && t.daemonSet == "" {
		if len(t.spec.NodeSelector) > 0 {
			return nil, fmt.Errorf("no node for nodeSelector %v", t.spec.NodeSelector)
		}
		return nil, fmt.Errorf("no node runs pods")
	}
	return out, nil
}

// tolerates reports whether the tolerations cover the node's taints: workers
// have none, others NoSchedule with each of their roles as the key.
func tolerates(tols []corev1.Toleration, n Node) bool {
	if n.RunsPods() {
		return true
	}
	for _, r := range n.Roles {
		ok := slices.ContainsFunc(tols, func(t corev1.Toleration) bool {
			key := t.Key == rolePrefix+string(r) || r == RoleControlPlane && t.Key == rolePrefix+"master"
			all := t.Key == "" && t.Operator == corev1.TolerationOpExists
			effect := t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule
			return effect && (all || key && (t.Operator == corev1.TolerationOpExists || t.Value == ""))
		})
		if !ok {
			return false
		}
	}
	return true
}

// matches reports whether labels has every pair of the selector.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// pick takes the node with the fewest pods of the same workload, then with the
// fewest pods, then the first in the file: round robin, undisturbed by pods
// that stay where they were.
func (p *placer) pick(eligible []int, own []int) int {
	best := eligible[0]
	for _, i := range eligible[1:] {
		if own[i] < own[best] || own[i] == own[best] && p.total[i] < p.total[best] {
			best = i
		}
	}
	return best
}

// place makes the pods of a template. Pods that were placed before stay if
// they still may.
func (p *placer) place(lab string, t *podTemplate, prev map[string]PodAllocation) ([]Pod, error) {
	eligible, err := p.eligible(t)
	if err != nil {
		who := t.owner
		if who == "" {
			who = "Pod/" + t.names[0]
		}
		return nil, fmt.Errorf("place %s in namespace %s: %w", who, t.namespace, err)
	}
	if t.daemonSet != "" {
		return p.everywhere(lab, t, eligible), nil
	}
	own, may := make([]int, len(p.nodes)), make([]bool, len(p.nodes))
	for _, i := range eligible {
		may[i] = true
	}
	pods := make([]Pod, len(t.names))
	for n, name := range t.names {
		pods[n] = t.newPod(lab, name)
		if i, ok := p.index[prev[pods[n].Key()].Node]; ok && may[i] {
			pods[n].Node = p.nodes[i].Name
			own[i]++
			p.total[i]++
		}
	}
	for n := range pods {
		if pods[n].Node == "" {
			i := p.pick(eligible, own)
			pods[n].Node = p.nodes[i].Name
			own[i]++
			p.total[i]++
		}
	}
	return pods, nil
}

// everywhere makes a DaemonSet's pods, named after their nodes.
func (p *placer) everywhere(lab string, t *podTemplate, eligible []int) []Pod {
	used := map[string]bool{}
	var pods []Pod
	for _, i := range eligible {
		node := p.nodes[i].Name
		suffix := safeHash(5, t.namespace, t.daemonSet, node)
		for used[suffix] {
			suffix = safeHash(5, suffix, node)
		}
		used[suffix] = true
		pod := t.newPod(lab, t.daemonSet+"-"+suffix)
		pod.Node = node
		p.total[i]++
		pods = append(pods, pod)
	}
	return pods
}
