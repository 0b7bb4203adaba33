package topology

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// With real components what the API says stands: addresses that pods have,
// endpoints as the slices have them, and no DNS but its own.
func TestWhatTheAPISays(t *testing.T) {
	c, diags := Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: t}\nspec: {components: light}\n"))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	empty, _, err := Allocate(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(empty.Pods)+len(empty.Services) > 0 || empty.ClusterDNS != netip.MustParseAddr("10.96.0.10") || empty.Components != ComponentsLight {
		t.Errorf("before the API says anything: pods %v, services %v, DNS %v, components %q", empty.Pods, empty.Services, empty.ClusterDNS, empty.Components)
	}
	node := empty.Nodes[1]
	has := node.PodCIDR.Addr()
	for range 7 {
		has = has.Next()
	}
	pod := func(name, ip string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}}}
		p.Spec.NodeName, p.Status.PodIP = node.Name, ip
		return p
	}
	svc := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	svc.Spec.ClusterIP, svc.Spec.Selector = "10.96.7.7", map[string]string{"app": "web"}
	svc.Spec.Ports = []corev1.ServicePort{{Port: 80, NodePort: 30080}}
	port, tcp, name := int32(8080), corev1.ProtocolTCP, ""
	slice := discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{has.String()}}},
	}
	// The second pod comes first in order, and must not get what the other has.
	s, _, err := Allocate(c, &Objects{Pods: []corev1.Pod{pod("a-new", ""), pod("b-old", has.String())}, Services: []corev1.Service{svc}, EndpointSlices: []discoveryv1.EndpointSlice{slice}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Pods) != 2 || s.Pods[1].Address != has || s.Pods[0].Address == has || !node.PodCIDR.Contains(s.Pods[0].Address) {
		t.Errorf("pods %v", s.Pods)
	}
	if len(s.Services) != 1 || len(s.Services[0].Ports[0].Endpoints) != 1 {
		t.Fatalf("services %+v", s.Services)
	}
	if e := s.Services[0].Ports[0].Endpoints[0]; e.Address != has || e.Pod != "default/b-old" || e.Port != 8080 {
		t.Errorf("endpoint %+v", e)
	}
}

// A pod that still has an address of a former mode gives its node no block; and a
// node has blocks for all the pods that its kubelet takes on.
func TestBlocksOfAFullLab(t *testing.T) {
	c, diags := Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: t}\nspec: {components: full, network: {mode: calico-bgp}}\n"))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "far"}}
	p.Spec.NodeName, p.Status.PodIP = c.Spec.Nodes[0].Name, "10.244.200.70"
	s, _, err := Allocate(c, &Objects{Pods: []corev1.Pod{p}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := s.NodeByName(c.Spec.Nodes[0].Name)
	want := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/26"), netip.MustParsePrefix("10.244.0.64/26")} // 128 addresses for 110 pods
	if !slices.Equal(n.Blocks, want) || s.Pods[0].Address.String() != p.Status.PodIP {
		t.Errorf("blocks %v, pod %v", n.Blocks, s.Pods[0].Address)
	}
	seen := map[netip.Prefix]string{}
	for _, n := range s.Nodes {
		for _, b := range n.Blocks {
			if other, dup := seen[b]; dup {
				t.Errorf("%s is of %s and of %s", b, other, n.Name)
			}
			seen[b] = n.Name
		}
	}
}
