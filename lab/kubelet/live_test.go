package kubelet

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"slipway/topology"
)

// a pod on node01, changed by fns.
func pod(name string, fns ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	p.Spec.NodeName = "node01"
	for _, fn := range fns {
		fn(p)
	}
	return p
}

func TestWhoIsPluggedIn(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	deleted := func(grace int64) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			at := metav1.NewTime(now.Add(time.Duration(grace) * time.Second))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
		}
	}
	made := func(second int) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(second) * time.Second))
		}
	}
	a := admission{
		lab: "demo", now: now, room: map[string]int{"node01": 3},
		running: map[string]types.UID{"default/leaving": "uid-leaving", "default/left": "uid-left", "default/hurried": "uid-hurried", "default/again": "of-the-former"},
		leaving: map[types.UID]time.Time{"uid-leaving": now.Add(-linger / 2), "uid-left": now.Add(-linger), "uid-hurried": now, "uid-pending": now},
	}
	for _, tc := range []struct {
		name string
		pods []*corev1.Pod
		want map[string]string // by name: in, out, out: why
	}{
		{"placed", []*corev1.Pod{pod("a")}, map[string]string{"a": "in"}},
		{"elsewhere", []*corev1.Pod{pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "other" })}, map[string]string{}},
		{"at its end", []*corev1.Pod{pod("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })}, map[string]string{}},
		{"on its way out", []*corev1.Pod{pod("leaving", deleted(30))}, map[string]string{"leaving": "in"}},
		{"on its way out long enough", []*corev1.Pod{pod("left", deleted(30))}, map[string]string{"left": "out"}},
		{"without grace", []*corev1.Pod{pod("hurried", deleted(0))}, map[string]string{"hurried": "out"}},
		{"deleted before it was in", []*corev1.Pod{pod("pending", deleted(30))}, map[string]string{"pending": "out"}},
		{"of the name of one that is still in", []*corev1.Pod{pod("again")}, map[string]string{"again": "out"}},
		{"of too many the last", []*corev1.Pod{pod("a", made(4)), pod("b", made(1)), pod("c", made(2)), pod("d", made(3)), pod("host", made(5), func(p *corev1.Pod) { p.Spec.HostNetwork = true })},
			map[string]string{"a": "out: the node's subnet has no address left", "b": "in", "c": "in", "d": "in", "host": "in"}},
		{"a name too long", []*corev1.Pod{pod(strings.Repeat("n", 250))}, map[string]string{strings.Repeat("n", 250): "out: the name of its network namespace would be too long for a file"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := map[string]string{}
			for uid, v := range a.judge(tc.pods) {
				said := "out"
				if v.in {
					said = "in"
				}
				if v.problem != "" {
					said += ": " + v.problem
				}
				got[strings.TrimPrefix(string(uid), "uid-")] = said
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// What the lab is told must not change with what the kubelets write themselves,
// or telling and writing would go on for ever.
func TestStatusesAreNoNews(t *testing.T) {
	p := pod("web")
	p.Spec.Containers = []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}
	written := p.DeepCopy()
	written.ResourceVersion, written.ManagedFields = "7", []metav1.ManagedFieldsEntry{{Manager: "slipway"}}
	written.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.2"}
	if d := cmp.Diff(plainPod(p), plainPod(written)); d != "" {
		t.Error(d)
	}
}

func TestClusterDNSIsTheLabs(t *testing.T) {
	dns := pod("coredns", func(p *corev1.Pod) { p.Namespace, p.Labels = "kube-system", map[string]string{"k8s-app": "kube-dns"} })
	like := pod("like", func(p *corev1.Pod) { p.Labels = map[string]string{"k8s-app": "kube-dns"} })
	in := map[types.UID]verdict{dns.UID: {in: true}, like.UID: {in: true}}
	got := objects([]*corev1.Pod{dns, like}, in, nil, nil).Pods
	if got[0].Annotations[topology.PodKindAnnotation] != string(topology.PodDNS) || got[1].Annotations != nil || dns.Annotations != nil {
		t.Errorf("%v %v %v", got[0].Annotations, got[1].Annotations, dns.Annotations)
	}
}
