package topology

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pods that a real API has made tell whose they are, and which the lab serves itself.
func TestPodsOfAnAPI(t *testing.T) {
	c, diags := Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: t}\n"))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	yes := true
	pod := func(name, ownerKind, owner string, labels map[string]string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}}
		p.Spec.NodeName = "node01"
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: ownerKind, Name: owner, Controller: &yes}}
		}
		return p
	}
	dns := pod("dns", "", "", nil)
	dns.Annotations = map[string]string{PodKindAnnotation: string(PodDNS)}
	s, _, err := Allocate(c, &Objects{Pods: []corev1.Pod{
		pod("web-6d4cf56db6-x", "ReplicaSet", "web-6d4cf56db6", map[string]string{"pod-template-hash": "6d4cf56db6"}),
		pod("alone-x", "ReplicaSet", "alone-6d4cf56db6", nil), pod("db-0", "StatefulSet", "db", nil), pod("bare", "", "", nil), dns,
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"web-6d4cf56db6-x": "Deployment/web", "alone-x": "ReplicaSet/alone-6d4cf56db6", "db-0": "StatefulSet/db", "bare": "", "dns": ""}
	for _, p := range userPods(s) {
		kind := PodEcho
		if p.Name == "dns" {
			kind = PodDNS
		}
		if owner, ok := want[p.Name]; !ok || p.Owner != owner || p.Kind != kind {
			t.Errorf("pod %s of %q is %s", p.Name, p.Owner, p.Kind)
		}
	}
}
