package kubelet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// plugged is what is known of a pod that is in its network.
type plugged struct {
	node, address netip.Addr
	since         metav1.Time
	// ready says of each container whether its probes succeed.
	ready, started map[string]bool
}

// running is the status of a pod that is plugged in, made of the one it had.
func running(pod *corev1.Pod, p plugged, now metav1.Time) corev1.PodStatus {
	s := *pod.Status.DeepCopy()
	s.Phase, s.Reason, s.Message = corev1.PodRunning, "", ""
	s.ObservedGeneration = pod.Generation
	s.HostIP, s.HostIPs = p.node.String(), []corev1.HostIP{{IP: p.node.String()}}
	s.PodIP, s.PodIPs = p.address.String(), []corev1.PodIP{{IP: p.address.String()}}
	if s.StartTime == nil {
		s.StartTime = p.since.DeepCopy()
	}
	s.InitContainerStatuses = nil
	for i := range pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, initStatus(pod, &pod.Spec.InitContainers[i], p))
	}
	s.ContainerStatuses = nil
	var unready []string
	for i := range pod.Spec.Containers {
		c := containerStatus(pod, &pod.Spec.Containers[i], p)
		if s.ContainerStatuses = append(s.ContainerStatuses, c); !c.Ready {
			unready = append(unready, c.Name)
		}
	}
	c := conditions{of: &s, generation: pod.Generation, now: now}
	c.set(corev1.PodReadyToStartContainers, true, "", "")
	c.set(corev1.PodInitialized, true, "", "")
	ready, why, said := len(unready) == 0, "", ""
	if !ready {
		why, said = "ContainersNotReady", fmt.Sprintf("containers with unready status: %v", unready)
	}
	c.set(corev1.ContainersReady, ready, why, said)
	if ready && !gatesOpen(pod) {
		ready, why, said = false, "ReadinessGatesNotReady", "a readiness gate has no condition that is True"
	}
	c.set(corev1.PodReady, ready, why, said)
	return s
}

// gatesOpen reports whether every condition holds that others write and the pod
// waits for (k8s.io/kubernetes pkg/kubelet/status, GeneratePodReadyCondition).
func gatesOpen(pod *corev1.Pod) bool {
	for _, g := range pod.Spec.ReadinessGates {
		if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == g.ConditionType && c.Status == corev1.ConditionTrue
		}) {
			return false
		}
	}
	return true
}

// conditions sets those of a pod; the time changes with the status alone.
type conditions struct {
	of         *corev1.PodStatus
	generation int64
	now        metav1.Time
}

func (c conditions) set(kind corev1.PodConditionType, holds bool, why, said string) {
	want := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: why, Message: said, ObservedGeneration: c.generation, LastTransitionTime: c.now}
	if holds {
		want.Status = corev1.ConditionTrue
	}
	for i := range c.of.Conditions {
		have := &c.of.Conditions[i]
		if have.Type != kind {
			continue
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		*have = want
		return
	}
	c.of.Conditions = append(c.of.Conditions, want)
}

// containerID names a container that nothing runs: there is no digest and no
// process, and the scheme says whose it is.
func containerID(pod *corev1.Pod, c *corev1.Container) string {
	return "slipway://" + string(pod.UID) + "/" + c.Name
}

func containerStatus(pod *corev1.Pod, c *corev1.Container, p plugged) corev1.ContainerStatus {
	started := p.started[c.Name]
	return corev1.ContainerStatus{
		Name: c.Name, Image: c.Image, ContainerID: containerID(pod, c), Ready: p.ready[c.Name] && started, Started: &started,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: p.since}},
	}
}

// initStatus shows an init container as done, and one that never ends (a
// sidecar) as running.
func initStatus(pod *corev1.Pod, c *corev1.Container, p plugged) corev1.ContainerStatus {
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		return containerStatus(pod, c, p)
	}
	started := false
	return corev1.ContainerStatus{
		Name: c.Name, Image: c.Image, ContainerID: containerID(pod, c), Ready: true, Started: &started,
		State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: p.since, FinishedAt: p.since, ContainerID: containerID(pod, c),
		}},
	}
}

// statusPatch is what makes the status of a pod the wanted one, for this very
// pod and no other of its name; nil if it is already.
func statusPatch(pod *corev1.Pod, want corev1.PodStatus) ([]byte, error) {
	from, err := json.Marshal(corev1.Pod{Status: pod.Status})
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(corev1.Pod{Status: want})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Pod{})
	if err != nil || string(patch) == "{}" {
		return nil, err
	}
	var body map[string]any
	if err := json.Unmarshal(patch, &body); err != nil {
		return nil, err
	}
	body["metadata"] = map[string]types.UID{"uid": pod.UID}
	return json.Marshal(body)
}
