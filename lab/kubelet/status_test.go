package kubelet

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

var (
	began = metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	later = metav1.NewTime(began.Add(time.Minute))
)

func in(address string, ready bool) plugged {
	return plugged{
		node: netip.MustParseAddr("192.168.233.11"), address: netip.MustParseAddr(address), since: began,
		ready: map[string]bool{"c": ready}, started: map[string]bool{"c": true},
	}
}

// placed is a pod as the scheduler leaves it.
func placed() *corev1.Pod {
	p := pod("web")
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "nginx"}}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: began}}}
	return p
}

// patched applies what statusPatch says, as the API server does.
func patched(t *testing.T, p *corev1.Pod, want corev1.PodStatus) *corev1.Pod {
	t.Helper()
	patch, err := statusPatch(p, want)
	if err != nil {
		t.Fatal(err)
	}
	if patch == nil {
		return p
	}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = strategicpatch.StrategicMergePatch(raw, patch, corev1.Pod{}); err != nil {
		t.Fatal(err)
	}
	out := &corev1.Pod{}
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func condition(t *testing.T, p *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	t.Helper()
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
	if i < 0 {
		t.Fatalf("no condition %s in %v", kind, p.Status.Conditions)
	}
	return p.Status.Conditions[i]
}

func TestStatusOfAPod(t *testing.T) {
	p := patched(t, placed(), running(placed(), in("10.244.1.2", false), began))
	if p.Status.Phase != corev1.PodRunning || p.Status.PodIP != "10.244.1.2" || p.Status.HostIP != "192.168.233.11" || !p.Status.StartTime.Equal(&began) {
		t.Errorf("%+v", p.Status)
	}
	if condition(t, p, corev1.PodScheduled).Status != corev1.ConditionTrue {
		t.Error("the scheduler's condition is lost")
	}
	if c := condition(t, p, corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != "ContainersNotReady" {
		t.Errorf("not ready is %+v", c)
	}
	p = patched(t, p, running(p, in("10.244.1.2", true), later))
	if c := condition(t, p, corev1.PodReady); c.Status != corev1.ConditionTrue || !c.LastTransitionTime.Equal(&later) || c.Reason != "" {
		t.Errorf("ready is %+v", c)
	}
	if c := condition(t, p, corev1.PodInitialized); !c.LastTransitionTime.Equal(&began) {
		t.Errorf("what did not change changed at %s", c.LastTransitionTime)
	}
	if c := p.Status.ContainerStatuses; len(c) != 1 || c[0].ContainerID != "slipway://uid-web/c" || !c[0].Ready || c[0].State.Running == nil {
		t.Errorf("%+v", c)
	}
	if patch, err := statusPatch(p, running(p, in("10.244.1.2", true), later)); patch != nil || err != nil {
		t.Errorf("nothing has changed, and yet %s (%v)", patch, err)
	}
	p = patched(t, p, running(p, in("10.244.0.65", true), later)) // another mode
	if d := cmp.Diff([]corev1.PodIP{{IP: "10.244.0.65"}}, p.Status.PodIPs); d != "" {
		t.Error(d)
	}
}

func TestPatchIsForOnePodOnly(t *testing.T) {
	raw, err := statusPatch(placed(), running(placed(), in("10.244.1.2", true), began))
	if err != nil {
		t.Fatal(err)
	}
	var body struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal(raw, &body); err != nil || body.Metadata.UID != "uid-web" {
		t.Errorf("%s: %v", raw, err)
	}
}

func TestReadinessGates(t *testing.T) {
	p := placed()
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	s := running(p, in("10.244.1.2", true), began)
	p.Status = s
	if c := condition(t, p, corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" {
		t.Errorf("%+v", c)
	}
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
	p.Status = running(p, in("10.244.1.2", true), later)
	if c := condition(t, p, corev1.PodReady); c.Status != corev1.ConditionTrue {
		t.Errorf("%+v", c)
	}
}
