package lab

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/topology"
)

// Pods without a network of their own in the lab, and those that have none yet,
// are not planned; an address that is handed on belongs to the pod that stays.
func TestPodsInLab(t *testing.T) {
	c := &topology.Cluster{Spec: topology.Spec{Nodes: []topology.Node{
		{Name: "node01", Roles: []topology.Role{topology.RoleWorker}}, {Name: "lb", Roles: []topology.Role{topology.RoleLoadBalancer}},
	}}}
	pod := func(name, node, ip string, edit ...func(*corev1.Pod)) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		p.Spec.NodeName, p.Status.PodIP = node, ip
		for _, e := range edit {
			e(&p)
		}
		return p
	}
	now := metav1.NewTime(time.Unix(1e9, 0))
	pods := []corev1.Pod{
		pod("leaving", "node01", "10.244.1.2", func(p *corev1.Pod) { p.DeletionTimestamp = &now }),
		pod("stays", "node01", "10.244.1.2"),
		pod("plain", "node01", "10.244.1.3"),
		pod("waiting", "node01", ""),
		pod("elsewhere", "node09", "10.244.9.2"),
		pod("on-lb", "lb", "10.244.8.2"),
		pod("host", "node01", "192.168.1.1", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		pod("done", "node01", "10.244.1.4", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
	}
	for full, want := range map[bool][]string{true: {"plain", "stays"}, false: {"leaving", "plain", "stays", "waiting"}} {
		var got []string
		for _, p := range podsInLab(pods, c, full) {
			got = append(got, p.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("full %v: %v, want %v", full, got, want)
		}
	}
}
