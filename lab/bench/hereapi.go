package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"slipway/installer/images"
	"slipway/lab"
	"slipway/lab/kubeapi"
	"slipway/topology"
)

// hereImage is the image that the nodes of a full lab have for such as this; what
// it serves does not matter, since the generator opens its own sockets.
const hereImage = "echo"

// apiStore is the API of a lab with real components.
type apiStore struct {
	lab   string
	image string
	api   kubernetes.Interface
}

func newAPIStore(r *Running) (store, error) {
	ref, err := images.Ref(hereImage)
	if err != nil {
		return nil, err
	}
	api, err := kubeapi.Client(r.Lab)
	if err != nil {
		return nil, err
	}
	return apiStore{r.Lab, ref, api}, nil
}

func (s apiStore) put(ctx context.Context, o *topology.Objects) error {
	for i := range o.Namespaces {
		if _, err := s.api.CoreV1().Namespaces().Create(ctx, &o.Namespaces[i], metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create namespace %s: %w", o.Namespaces[i].Name, err)
		}
	}
	for i := range o.Services {
		if _, err := s.api.CoreV1().Services(hereNamespace).Create(ctx, &o.Services[i], metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create service %s: %w", o.Services[i].Name, err)
		}
	}
	for i := range o.Pods {
		if err := s.createPod(ctx, s.adapted(&o.Pods[i])); err != nil {
			return fmt.Errorf("create pod %s: %w", o.Pods[i].Name, err)
		}
	}
	return nil
}

// adapted is a pod as real kubelets can run it: from the image that is there, on
// whatever node, and quick to end.
func (s apiStore) adapted(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	grace, token := int64(1), false
	p.Spec.TerminationGracePeriodSeconds, p.Spec.AutomountServiceAccountToken = &grace, &token
	p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Image, p.Spec.Containers[i].ImagePullPolicy = s.image, corev1.PullIfNotPresent
	}
	return p
}

// createPod waits for the namespace's service account, without which no pod is
// admitted, and which a controller makes a moment after the namespace
// (k8s.io/kubernetes plugin/pkg/admission/serviceaccount).
func (s apiStore) createPod(ctx context.Context, p *corev1.Pod) error {
	end := time.Now().Add(arrivePatience)
	for {
		_, err := s.api.CoreV1().Pods(hereNamespace).Create(ctx, p, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(hereEvery):
		}
	}
}

// clear deletes pods and services before their namespace, whose controller is in
// less of a hurry, and waits until API and lab have forgotten them.
func (s apiStore) clear(ctx context.Context) error {
	core := s.api.CoreV1()
	n, err := core.Namespaces().Get(ctx, hereNamespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return s.forgotten(ctx)
	}
	if err != nil {
		return fmt.Errorf("look for namespace %s: %w", hereNamespace, err)
	}
	if !ours(n.ObjectMeta) {
		return errForeign
	}
	services, err := core.Services(hereNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list services of %s: %w", hereNamespace, err)
	}
	for _, svc := range services.Items {
		if err := core.Services(hereNamespace).Delete(ctx, svc.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete service %s: %w", svc.Name, err)
		}
	}
	if err := core.Pods(hereNamespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pods of %s: %w", hereNamespace, err)
	}
	// A namespace that is on its way out already conflicts.
	if err := core.Namespaces().Delete(ctx, hereNamespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete namespace %s: %w", hereNamespace, err)
	}
	return s.forgotten(ctx)
}

// forgotten waits until neither the API nor the lab has anything of the bench's.
func (s apiStore) forgotten(ctx context.Context) error {
	for {
		_, err := s.api.CoreV1().Namespaces().Get(ctx, hereNamespace, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("look for namespace %s: %w", hereNamespace, err)
		}
		if err != nil {
			st, err := lab.ReadState(s.lab)
			if err != nil {
				return err
			}
			if !knows(st.Snapshot) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until namespace %s is gone: %w", hereNamespace, context.Cause(ctx))
		case <-time.After(hereEvery):
		}
	}
}

// knows reports whether anything of the bench's is in a snapshot.
func knows(s *topology.Snapshot) bool {
	return slices.ContainsFunc(s.Pods, func(p topology.Pod) bool { return p.Namespace == hereNamespace }) ||
		slices.ContainsFunc(s.Services, func(v topology.Service) bool { return v.Namespace == hereNamespace })
}

// missing is what the pod's status says of why it does not run.
func (s apiStore) missing(ctx context.Context, pod string) string {
	p, err := s.api.CoreV1().Pods(hereNamespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return fmt.Sprintf(" (%v)", err)
	}
	said := string(p.Status.Phase)
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			said += ", " + w.Reason + " " + w.Message
		}
	}
	return fmt.Sprintf(" (it is %s; `slipway kubectl describe -n %s pod %s` says more)", said, hereNamespace, pod)
}
