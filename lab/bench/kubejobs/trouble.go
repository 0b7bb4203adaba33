package kubejobs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ImageError reports an image that a node cannot have.
type ImageError struct{ Image, Node, Said string }

// Error says which node says what.
func (e *ImageError) Error() string {
	return fmt.Sprintf("node %s cannot have the image %s: %s", e.Node, e.Image, e.Said)
}

// Hint says how it is had.
func (e *ImageError) Hint() string {
	return "any image whose entry point is this program will do: `slipway components image -w slipway.tar` writes one; push it to a registry that the nodes reach and name it by --image, or import it on the nodes"
}

// UnschedulableError reports a pod that its node does not take.
type UnschedulableError struct{ Pod, Node, Said string }

// Error says what the scheduler says.
func (e *UnschedulableError) Error() string {
	return fmt.Sprintf("pod %s cannot be scheduled on node %s: %s", e.Pod, e.Node, e.Said)
}

// Hint says which nodes to choose.
func (e *UnschedulableError) Hint() string { return "--nodes chooses the two nodes" }

// PodError reports a pod that does not run, or ended before it was done.
type PodError struct{ Pod, Node, Said string }

// Error says what its status says.
func (e *PodError) Error() string {
	return fmt.Sprintf("pod %s on node %s does not do its work: %s", e.Pod, e.Node, e.Said)
}

// ForbiddenError reports what the kubeconfig's account may not do.
type ForbiddenError struct{ Lacks []string }

// Error lists it.
func (e *ForbiddenError) Error() string {
	return "the account of this kubeconfig may not " + strings.Join(e.Lacks, ", nor ")
}

// Hint says how to look.
func (e *ForbiddenError) Hint() string {
	return "`kubectl auth can-i --list` shows what it may; the documentation of `slipway bench` has a role with all that is needed"
}

// UnreachableError reports an API that does not answer.
type UnreachableError struct {
	Host string
	Err  error
}

// Error says which and why.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the API at %s does not answer: %v", e.Host, e.Err)
}

// Unwrap is the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *UnreachableError) Hint() string {
	return "look at --kubeconfig and --context; `kubectl cluster-info` asks the same"
}

// of says what was done when the API failed, and tells apart what its user can do
// something about.
func (r *running) failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	var dial *net.OpError
	var asked *url.Error
	switch {
	case apierrors.IsForbidden(err):
		return &ForbiddenError{[]string{doing + " (" + err.Error() + ")"}}
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: the API does not know this kubeconfig's account: %w", doing, err)
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &dial), errors.As(err, &asked):
		if asked != nil {
			err = asked.Err
		}
		return &UnreachableError{r.Host, err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// imageReasons are those of a container that waits for its image
// (k8s.io/kubernetes pkg/kubelet/images/types.go).
var imageReasons = map[string]bool{
	"ErrImagePull": true, "ImagePullBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true, "ImageInspectError": true, "RegistryUnavailable": true,
}

// troubleOf is what keeps a pod from doing its work; nil if nothing is known to.
// unschedulable is nil until a scheduler has had its time.
func troubleOf(p *corev1.Pod, node string, schedulable bool) error {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && !schedulable {
			return &UnschedulableError{p.Name, node, c.Message}
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && imageReasons[w.Reason] {
			return &ImageError{p.Spec.Containers[0].Image, node, strings.TrimSpace(w.Reason + ": " + w.Message)}
		}
		if w := c.State.Waiting; w != nil && (strings.HasPrefix(w.Reason, "CreateContainer") || w.Reason == "RunContainerError" || w.Reason == "CrashLoopBackOff") {
			return &PodError{p.Name, node, strings.TrimSpace(w.Reason + " " + w.Message)}
		}
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return &PodError{p.Name, node, strings.TrimSpace(fmt.Sprintf("exit code %d (%s): %s", t.ExitCode, t.Reason, strings.TrimSpace(t.Message)))}
		}
	}
	if p.Status.Phase == corev1.PodFailed {
		return &PodError{p.Name, node, strings.TrimSpace(p.Status.Reason + " " + p.Status.Message)}
	}
	return nil
}
