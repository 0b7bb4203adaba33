package kubejobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	authv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"slipway/lab"
)

// The signs of life of a bench: a run beats, and one that is not seen to beat is
// dead. Clocks are not compared.
const (
	beatEvery   = 5 * time.Second
	deadAfter   = 20 * time.Second
	leaveWithin = 2 * time.Minute
	lookEvery   = 250 * time.Millisecond
)

// ErrBusy reports that another bench is at work in the namespace.
var ErrBusy = errors.New("another bench is measuring in this cluster")

// ErrForeign reports a namespace of somebody else's.
var ErrForeign = errors.New("this namespace is not the bench's")

// rights are what the bench does, by API group.
var rights = []struct{ verb, group, resource, sub string }{
	{"list", "", "nodes", ""},
	{"get", "", "namespaces", ""}, {"create", "", "namespaces", ""}, {"patch", "", "namespaces", ""}, {"delete", "", "namespaces", ""},
	{"create", "", "serviceaccounts", ""}, {"create", "", "services", ""}, {"get", "", "services", ""},
	{"create", "", "pods", ""}, {"get", "", "pods", ""}, {"list", "", "pods", ""}, {"deletecollection", "", "pods", ""}, {"get", "", "pods", "log"},
	{"create", "batch", "jobs", ""}, {"delete", "batch", "jobs", ""}, {"deletecollection", "batch", "jobs", ""},
}

// permitted asks for all rights at once, before anything is made. An API that does
// not know the question is not asked twice.
func (r *running) permitted(ctx context.Context) error {
	lacks := make([]string, len(rights))
	errs := make([]error, len(rights))
	var all sync.WaitGroup
	for i, of := range rights {
		all.Go(func() {
			a := &authv1.ResourceAttributes{Verb: of.verb, Group: of.group, Resource: of.resource, Subresource: of.sub}
			if of.resource != "nodes" && of.resource != "namespaces" {
				a.Namespace = r.Namespace
			}
			if of.resource == "namespaces" && of.verb != "create" {
				a.Name = r.Namespace
			}
			review, err := r.API.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authv1.SelfSubjectAccessReview{
				Spec: authv1.SelfSubjectAccessReviewSpec{ResourceAttributes: a},
			}, metav1.CreateOptions{})
			switch {
			case err != nil:
				errs[i] = err
			case !review.Status.Allowed:
				lacks[i] = right(a)
			}
		})
	}
	all.Wait()
	e := &ForbiddenError{}
	for i, l := range lacks {
		if errs[i] != nil && !apierrors.IsForbidden(errs[i]) && !apierrors.IsNotFound(errs[i]) {
			return r.failed("ask what this account may do", errs[i])
		}
		if l != "" {
			e.Lacks = append(e.Lacks, l)
		}
	}
	if len(e.Lacks) > 0 {
		return e
	}
	return nil
}

// right is one in words: "create jobs.batch in namespace slipway-bench".
func right(a *authv1.ResourceAttributes) string {
	what := a.Resource
	if a.Subresource != "" {
		what += "/" + a.Subresource
	}
	if a.Group != "" {
		what += "." + a.Group
	}
	if a.Namespace != "" {
		return a.Verb + " " + what + " in namespace " + a.Namespace
	}
	return a.Verb + " " + what
}

// claim makes the namespace; one that a dead run left is removed before. The
// namespace of a run that lives, or somebody else's, is left alone.
func (r *running) claim(ctx context.Context, onNode bool) error {
	n, err := r.API.CoreV1().Namespaces().Get(ctx, r.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return r.failed("look for namespace "+r.Namespace, err)
	case n.Labels[Label] != "true":
		return fmt.Errorf("namespace %s: %w: it lacks the label %s, and nothing in it is touched (--namespace names another)", r.Namespace, ErrForeign, Label)
	default:
		r.Progress.Phase("namespace "+r.Namespace+" is there already: does its bench live?", 0)
		if err := r.dead(ctx, n.UID, n.Annotations[beatMark]); err != nil {
			return err
		}
		r.Progress.Phase("removing what a bench left that was killed", 0)
		if err := r.remove(ctx); err != nil {
			return err
		}
	}
	made, err := r.API.CoreV1().Namespaces().Create(ctx, namespaceFor(r.Namespace, r.Owner, onNode), metav1.CreateOptions{})
	if err != nil {
		if apierrors.IsAlreadyExists(err) {
			err = ErrBusy
		}
		return r.failed("create namespace "+r.Namespace, err)
	}
	r.uid = made.UID
	return nil
}

// dead waits for a sign of life, and is an error if there is one. A namespace that
// is being removed has nobody.
func (r *running) dead(ctx context.Context, uid types.UID, beat string) error {
	for end := time.Now().Add(r.deadAfter); time.Now().Before(end); {
		n, err := r.API.CoreV1().Namespaces().Get(ctx, r.Namespace, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return r.failed("look at namespace "+r.Namespace, err)
		case n.DeletionTimestamp != nil:
			return nil
		case n.UID != uid, n.Annotations[beatMark] != beat:
			return fmt.Errorf("namespace %s, of %s: %w", r.Namespace, n.Annotations[ownerMark], ErrBusy)
		}
		if err := pause(ctx, lookEvery); err != nil {
			return err
		}
	}
	return nil
}

// beat shows that this run lives, until ctx ends. A beat that is not taken is of no
// matter: the next one may be.
func (r *running) beat(ctx context.Context) {
	for n := 1; pause(ctx, beatEvery) == nil; n++ {
		patch := []byte(`{"metadata":{"annotations":{"` + beatMark + `":"` + strconv.Itoa(n) + `"}}}`)
		_, _ = r.API.CoreV1().Namespaces().Patch(ctx, r.Namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	}
}

// leave removes what was made, also when ctx has ended.
func (r *running) leave(ctx context.Context) error {
	if r.uid == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), leaveWithin, fmt.Errorf("not within %s", leaveWithin))
	defer cancel()
	if err := r.remove(ctx); err != nil {
		return fmt.Errorf("%w: remove namespace %s (the next `slipway bench --kubeconfig` does, or `kubectl delete namespace %[2]s`): %w", lab.ErrCleanUp, r.Namespace, err)
	}
	return nil
}

// remove deletes Jobs, pods and services before their namespace, whose controller is
// in less of a hurry, and waits until it is gone.
func (r *running) remove(ctx context.Context) error {
	core := r.API.CoreV1()
	now, background := int64(grace), metav1.DeletePropagationBackground
	del := metav1.DeleteOptions{GracePeriodSeconds: &now, PropagationPolicy: &background}
	ours := metav1.ListOptions{LabelSelector: Label}
	if err := r.API.BatchV1().Jobs(r.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: &background}, ours); err != nil {
		return r.failed("delete the Jobs of "+r.Namespace, err)
	}
	if err := core.Pods(r.Namespace).DeleteCollection(ctx, del, metav1.ListOptions{}); err != nil {
		return r.failed("delete the pods of "+r.Namespace, err)
	}
	// A namespace that is on its way out already conflicts.
	if err := core.Namespaces().Delete(ctx, r.Namespace, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return r.failed("delete namespace "+r.Namespace, err)
	}
	for {
		_, err := core.Namespaces().Get(ctx, r.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return r.failed("look for namespace "+r.Namespace, err)
		}
		if err := pause(ctx, lookEvery); err != nil {
			return fmt.Errorf("wait until namespace %s is gone: %w", r.Namespace, err)
		}
	}
}

// pause waits, or says why not.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
