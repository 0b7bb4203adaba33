package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"slipway/lab"
	"slipway/lab/kubeapi"
)

// Patience and pace of the wait for workloads.
const (
	settlePatience = 2 * time.Minute
	settleEvery    = 50 * time.Millisecond
)

// UnsettledError says what of a cluster's workloads does not run.
type UnsettledError struct{ Missing []string }

// Error lists it.
func (e *UnsettledError) Error() string {
	return fmt.Sprintf("after %s there is still no %s (`slipway kubectl get pods -A -o wide` and `slipway kubectl describe` say more)", settlePatience, strings.Join(e.Missing, ", no "))
}

// settle waits until every workload has the replicas that it asks for, and the
// lab knows of all pods.
func settle(ctx context.Context, name string) error {
	api, err := kubeapi.Client(name)
	if err != nil {
		return err
	}
	end := time.Now().Add(settlePatience)
	for {
		missing, err := unsettled(ctx, api)
		if err == nil && len(missing) == 0 {
			if missing, err = unseen(ctx, api, name); err == nil && len(missing) == 0 {
				return nil
			}
		}
		if time.Now().After(end) {
			if err != nil {
				return fmt.Errorf("look at the workloads: %w", err)
			}
			return &UnsettledError{missing}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settleEvery):
		}
	}
}

// unsettled names the workloads that are not what they should be.
func unsettled(ctx context.Context, api kubernetes.Interface) ([]string, error) {
	var out []string
	want := func(kind string, o metav1.ObjectMeta, observed int64, ready, replicas int32) {
		if observed < o.Generation || ready < replicas {
			out = append(out, fmt.Sprintf("%d of %d replicas of %s %s/%s", replicas-ready, replicas, kind, o.Namespace, o.Name))
		}
	}
	deployments, err := api.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		want("Deployment", d.ObjectMeta, d.Status.ObservedGeneration, min(d.Status.AvailableReplicas, d.Status.UpdatedReplicas), *d.Spec.Replicas)
	}
	daemons, err := api.AppsV1().DaemonSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range daemons.Items {
		want("DaemonSet", d.ObjectMeta, d.Status.ObservedGeneration, d.Status.NumberAvailable, d.Status.DesiredNumberScheduled)
	}
	sets, err := api.AppsV1().StatefulSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, s := range sets.Items {
		want("StatefulSet", s.ObjectMeta, s.Status.ObservedGeneration, s.Status.AvailableReplicas, *s.Spec.Replicas)
	}
	return out, nil
}

// unseen names the running pods that the lab does not know, or knows under
// another address.
func unseen(ctx context.Context, api kubernetes.Interface, name string) ([]string, error) {
	pods, err := api.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, p := range st.Snapshot.Pods {
		known = append(known, p.Key()+" "+p.Address.String())
	}
	var out []string
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil || p.Spec.HostNetwork {
			continue
		}
		if !slices.Contains(known, p.Namespace+"/"+p.Name+" "+p.Status.PodIP) {
			out = append(out, fmt.Sprintf("pod %s/%s in the lab", p.Namespace, p.Name))
		}
	}
	return out, nil
}
