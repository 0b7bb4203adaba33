package kubelet

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"slipway/datapath/lease"
	"slipway/topology"
)

func snapshot(t *testing.T, mode string) *topology.Snapshot {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec: {network: {mode: "+mode+"}}\n"))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, err := topology.Allocate(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var machine = machineInfo{version: "v1.36.3" + lightSuffix, kernel: "6.1", bootID: "b", arch: "amd64", cpus: 2, memoryBytes: 8 << 30}

func node(t *testing.T, s *topology.Snapshot, name string, now metav1.Time) *corev1.Node {
	t.Helper()
	n, ok := s.NodeByName(name)
	if !ok {
		t.Fatalf("no node %s", name)
	}
	out, err := nodeObject(s, n, machine, now)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNodeOfAFlannelMode(t *testing.T) {
	n := node(t, snapshot(t, "flannel-vxlan"), "node01", began)
	// 10.244.0.0/24 is the first node's. A /24 has 256 addresses, less the
	// subnet's, the bridge's and the broadcast address.
	if pods := n.Status.Capacity.Pods().Value(); n.Spec.PodCIDR != "10.244.1.0/24" || pods != 253 || len(n.Spec.Taints) != 0 {
		t.Errorf("%s, %d pods, taints %v", n.Spec.PodCIDR, pods, n.Spec.Taints)
	}
	if a := n.Annotations; a[lease.BackendTypeAnnotation] != "vxlan" || a[lease.PublicIPAnnotation] != n.Status.Addresses[0].Address || a[lease.ManagedAnnotation] != "true" {
		t.Errorf("%v", a)
	}
	var data struct {
		VNI     int
		VtepMAC string
	}
	if err := json.Unmarshal([]byte(n.Annotations[lease.BackendDataAnnotation]), &data); err != nil || data.VNI != 1 || data.VtepMAC == "" {
		t.Errorf("%s: %v", n.Annotations[lease.BackendDataAnnotation], err)
	}
	master := node(t, snapshot(t, "flannel-vxlan"), "master01", began)
	if !slices.ContainsFunc(master.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == "node-role.kubernetes.io/control-plane" && t.Effect == corev1.TaintEffectNoSchedule
	}) {
		t.Errorf("a master's taints are %v", master.Spec.Taints)
	}
}

func merged(t *testing.T, have *corev1.Node, patch []byte) *corev1.Node {
	t.Helper()
	if patch == nil {
		return have
	}
	raw, err := json.Marshal(have)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = strategicpatch.StrategicMergePatch(raw, patch, corev1.Node{}); err != nil {
		t.Fatal(err)
	}
	out := &corev1.Node{}
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A node that the installer has registered is completed; what others wrote stays.
func TestNodeIsCompleted(t *testing.T) {
	s := snapshot(t, "flannel-vxlan")
	have := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node01", Labels: map[string]string{"mine": "1"}, Annotations: map[string]string{"theirs": "1", lease.BlocksAnnotation: "10.244.0.0/26"}}}
	have.Spec.PodCIDR, have.Spec.PodCIDRs, have.Spec.Unschedulable = "10.244.1.0/24", []string{"10.244.1.0/24"}, true
	have.Status.Conditions = []corev1.NodeCondition{{Type: "NetworkUnavailable", Status: corev1.ConditionFalse}, {Type: corev1.NodeReady, Status: corev1.ConditionUnknown, LastTransitionTime: began}}
	meta, status, err := nodePatches(have, node(t, s, "node01", later))
	if err != nil {
		t.Fatal(err)
	}
	got := merged(t, merged(t, have, meta), status)
	if got.Labels["mine"] != "1" || got.Labels[corev1.LabelHostname] != "node01" || got.Annotations["theirs"] != "1" || got.Annotations[lease.BlocksAnnotation] != "" || !got.Spec.Unschedulable {
		t.Errorf("%v %v %+v", got.Labels, got.Annotations, got.Spec)
	}
	is := map[corev1.NodeConditionType]corev1.ConditionStatus{}
	for _, c := range got.Status.Conditions {
		is[c.Type] = c.Status
		if c.Type == corev1.NodeReady && !c.LastTransitionTime.Equal(&later) {
			t.Errorf("ready since %s", c.LastTransitionTime)
		}
	}
	if d := cmp.Diff(map[corev1.NodeConditionType]corev1.ConditionStatus{
		"NetworkUnavailable": "False", corev1.NodeReady: "True", corev1.NodeMemoryPressure: "False", corev1.NodeDiskPressure: "False", corev1.NodePIDPressure: "False",
	}, is); d != "" {
		t.Error(d)
	}
	soon := metav1.NewTime(later.Add(heartbeat / 2))
	if meta, status, err := nodePatches(got, node(t, s, "node01", soon)); meta != nil || status != nil || err != nil {
		t.Errorf("nothing to say, and yet %s %s %v", meta, status, err)
	}
	if _, status, _ := nodePatches(got, node(t, s, "node01", metav1.NewTime(later.Add(heartbeat)))); status == nil {
		t.Error("no heartbeat")
	}
}

func TestNodeOfACalicoMode(t *testing.T) {
	n := node(t, snapshot(t, "calico-bgp"), "node01", began)
	if n.Spec.PodCIDR != "" || n.Annotations[lease.BlocksAnnotation] != "10.244.0.64/26" || n.Annotations[lease.BackendTypeAnnotation] != "" {
		t.Errorf("%q %v", n.Spec.PodCIDR, n.Annotations)
	}
}
