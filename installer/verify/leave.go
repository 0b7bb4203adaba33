package verify

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// clear removes the namespace with all that is in it, and waits until it is gone.
func (v *verification) clear(ctx context.Context) error {
	if !v.made {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	_, err := v.Kubectl(ctx, nil, "delete", "namespace", v.namespace, "--ignore-not-found", "--timeout", leaveWithin.String())
	if err != nil {
		return fmt.Errorf("namespace %s: %w: %w (`kubectl delete namespace %[1]s` removes it)", v.namespace, ErrLeft, err)
	}
	return nil
}

// sweep has the cluster remove what a verification left that was killed. A fresh
// one may be somebody's who is at it. It is not waited for, and must not succeed.
func (v *verification) sweep(ctx context.Context) {
	var list corev1.NamespaceList
	if err := v.get(ctx, &list, "namespaces", "-l", markLabel+"=true"); err != nil {
		return // whoever asks next says why
	}
	for _, n := range list.Items {
		if n.DeletionTimestamp == nil && time.Since(n.CreationTimestamp.Time) > leftAfter {
			_, _ = v.Kubectl(ctx, nil, "delete", "namespace", n.Name, "--wait=false")
		}
	}
}
