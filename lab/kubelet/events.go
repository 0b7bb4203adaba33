package kubelet

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// record begins to send events to the API, where `kubectl describe` shows them.
func (l *light) record(ctx context.Context) (stop func()) {
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: l.api.CoreV1().Events("")})
	l.events = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "slipway-light"})
	return b.Shutdown
}

// say records an event about a pod, unless it was the last one.
func (l *light) say(p *corev1.Pod, kind, reason, text string) {
	if said := reason + ": " + text; l.told[p.UID] != said {
		l.told[p.UID] = said
		l.events.Event(p, kind, reason, text)
	}
}

// tellOnce says what a pod got instead of containers.
func (l *light) tellOnce(p *corev1.Pod, a netip.Addr) {
	switch {
	case p.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		l.say(p, corev1.EventTypeWarning, "NotRun", "plugged in with "+a.String()+", but a light node runs no containers: the command is not run, and the pod never ends (with `components: full` it would)")
	case p.Spec.HostNetwork:
		l.say(p, corev1.EventTypeWarning, "NotRun", "a light node runs no containers: nothing answers in the node's own network")
	default:
		l.say(p, corev1.EventTypeNormal, "Plugged", "plugged in with "+a.String()+"; a light node runs no containers: the lab answers on the declared ports")
	}
}
