package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"slipway/lab"
	"slipway/topology"
)

// light has the lab follow its API, and the API hear what became of it.
type light struct {
	loop
	api    kubernetes.Interface
	events record.EventRecorder
	probes *probes

	since   map[types.UID]metav1.Time // when pods were plugged in
	leaving map[types.UID]time.Time   // when their deletion was heard of
	told    map[types.UID]string      // what was last said in their events
	sent    map[types.UID]string      // the version of the pod that was answered last
}

func newLight(name string, api kubernetes.Interface, w *watched, log *slog.Logger) *light {
	l := &light{
		loop: loop{world: world{lab: name}, have: w, log: log, moved: make(chan struct{}, 1)}, api: api,
		since: map[types.UID]metav1.Time{}, leaving: map[types.UID]time.Time{}, told: map[types.UID]string{}, sent: map[types.UID]string{},
	}
	l.probes = newProbes(w.changed, func(p *corev1.Pod, of purpose, err error) {
		l.events.Eventf(p, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %v", of, err)
	})
	return l
}

// run passes whenever something has changed, until the lab is gone.
func (l *light) run(ctx context.Context) error {
	stop := l.record(ctx)
	defer stop()
	defer l.probes.running.Wait()
	return l.passes(ctx, l.pass)
}

// pass makes the lab and the API agree, as far as both are known now.
func (l *light) pass(ctx context.Context) error {
	pods, services, slices, ok := l.have.now()
	if !ok {
		return nil
	}
	verdicts := l.judge(pods)
	if err := l.tell(ctx, &lab.Live{Objects: objects(pods, verdicts, services, slices)}); err != nil {
		return fmt.Errorf("plug in pods: %w", err)
	}
	return l.answer(ctx, pods, verdicts)
}

func (l *light) judge(pods []*corev1.Pod) map[types.UID]verdict {
	a := admission{lab: l.lab, room: map[string]int{}, running: l.running, leaving: l.leaving, now: time.Now()}
	for _, n := range played(l.snapshot) {
		a.room[n.Name] = room(l.snapshot, n)
	}
	known := map[types.UID]bool{}
	for _, p := range pods {
		known[p.UID] = true
		if p.DeletionTimestamp != nil && l.leaving[p.UID].IsZero() {
			l.leaving[p.UID] = a.now
		}
	}
	forget(l.leaving, known)
	forget(l.since, known)
	forget(l.told, known)
	forget(l.sent, known)
	out := a.judge(pods)
	for _, v := range out {
		if !v.again.IsZero() && (v.in || !v.again.After(a.now)) {
			l.passIn(time.Until(v.again))
		}
	}
	return out
}

func forget[T any](m map[types.UID]T, known map[types.UID]bool) {
	for uid := range m {
		if !known[uid] {
			delete(m, uid)
		}
	}
}

// answer writes the statuses of the pods that are plugged in, and lets those go
// whose deletion was asked for and that are not.
func (l *light) answer(ctx context.Context, pods []*corev1.Pod, verdicts map[types.UID]verdict) error {
	plugged, wanted := l.pods(), map[probeKey]target{}
	addresses := map[types.UID]netip.Addr{}
	for _, p := range pods {
		if a, ok := l.addressOf(p, verdicts[p.UID], plugged); ok {
			addresses[p.UID] = a
			if !p.Spec.HostNetwork && !isDNS(p) { // the one has nobody to answer, the other the lab's own DNS
				targets(wanted, p, a, lab.NSOfMachine(l.lab, p.Spec.NodeName))
			}
		}
	}
	l.probes.set(ctx, wanted)
	var g errgroup.Group
	g.SetLimit(atOnce)
	now := metav1.Now()
	for _, p := range pods {
		v, ours := verdicts[p.UID]
		a, in := addresses[p.UID]
		switch {
		case p.DeletionTimestamp != nil:
			if l.plays(p) && !v.in && l.running[key(p)] != p.UID {
				g.Go(func() error { return l.release(ctx, p) })
			}
		case in:
			patch, err := l.patch(p, a, wanted, now)
			if err != nil {
				return err
			}
			if patch != nil {
				g.Go(func() error { return l.write(ctx, p, patch) })
			}
			if p.Status.PodIP != a.String() {
				l.tellOnce(p, a)
			}
		case ours && v.problem != "":
			l.say(p, corev1.EventTypeWarning, "FailedCreatePodSandBox", v.problem)
		}
	}
	err := g.Wait()
	if err != nil {
		clear(l.sent) // what of it arrived is not known
	}
	return err
}

func (l *light) plays(p *corev1.Pod) bool {
	n, ok := l.snapshot.NodeByName(p.Spec.NodeName)
	return ok && n.InDatapath()
}

// addressOf finds the address of a pod that is in its network.
func (l *light) addressOf(p *corev1.Pod, v verdict, plugged map[string]topology.Pod) (netip.Addr, bool) {
	if !v.in || !l.complete {
		return netip.Addr{}, false
	}
	if p.Spec.HostNetwork {
		n, ok := l.snapshot.NodeByName(p.Spec.NodeName)
		return n.Interface.Prefix.Addr(), ok
	}
	at, ok := plugged[key(p)]
	return at.Address, ok && l.running[key(p)] == p.UID
}

// patch is what a pod's status lacks; nil if nothing, or if it was sent and the
// API's word of it has not come back.
func (l *light) patch(p *corev1.Pod, a netip.Addr, probed map[probeKey]target, now metav1.Time) ([]byte, error) {
	n, _ := l.snapshot.NodeByName(p.Spec.NodeName)
	in := plugged{node: n.Interface.Prefix.Addr(), address: a, since: l.sinceWhen(p, now), ready: map[string]bool{}, started: map[string]bool{}}
	for _, c := range p.Spec.Containers {
		in.ready[c.Name] = l.probes.holds(probed, probeKey{p.UID, c.Name, readiness, a})
		in.started[c.Name] = l.probes.holds(probed, probeKey{p.UID, c.Name, startup, a})
	}
	for _, c := range p.Spec.InitContainers {
		in.ready[c.Name], in.started[c.Name] = true, true
	}
	want := running(p, in, now)
	patch, err := statusPatch(p, want)
	if err != nil || patch == nil {
		return nil, err
	}
	version := fmt.Sprint(p.ResourceVersion, a, in.ready, in.started)
	if l.sent[p.UID] == version {
		return nil, nil
	}
	l.sent[p.UID] = version
	return patch, nil
}

// sinceWhen is when a pod was plugged in: as its status says, if a former process
// of this kind wrote it.
func (l *light) sinceWhen(p *corev1.Pod, now metav1.Time) metav1.Time {
	if _, ok := l.since[p.UID]; !ok {
		l.since[p.UID] = now
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running != nil {
				l.since[p.UID] = c.State.Running.StartedAt
			}
		}
	}
	return l.since[p.UID]
}

// write sends a status. A pod that is gone or another one by now has none.
func (l *light) write(ctx context.Context, p *corev1.Pod, patch []byte) error {
	_, err := l.api.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("write status of pod %s: %w", key(p), err)
}

// release removes a pod from the API that is out of its network.
func (l *light) release(ctx context.Context, p *corev1.Pod) error {
	if g := p.DeletionGracePeriodSeconds; g != nil && *g == 0 && len(p.Finalizers) > 0 {
		return nil // done before; it stays for others to finish with
	}
	now := int64(0)
	err := l.api.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete pod %s: %w", key(p), err)
}
