package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"slipway/lab"
	"slipway/topology"
)

// Leases as kubelets have them (k8s.io/kubernetes pkg/kubelet/apis/config/v1beta1,
// nodeLeaseDurationSeconds, and a quarter of it).
const (
	leaseSeconds = 40
	renewEvery   = leaseSeconds * time.Second / 4
)

// roundPatience is how long all nodes' requests may take: an API server that
// needs longer hangs, and there is still time to ask another one.
const roundPatience = renewEvery

// atOnce is how many requests of one kind are on their way together.
const atOnce = 16

// nodes keeps the lab's nodes registered and alive.
type nodes struct {
	lab     string
	api     kubernetes.Interface
	machine machineInfo
	log     *slog.Logger
	// leave gives up an API server that hangs.
	leave func()
	// moved has a round begin at once: the lab's own state is another one.
	moved <-chan struct{}
}

// keep registers and renews until ctx ends. While the API is away it tries
// again soon: nodes whose leases ran out lose their pods.
func (n *nodes) keep(ctx context.Context) error {
	rest, down := firstRest, false
	for {
		err := n.round(ctx)
		wait := renewEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, lab.ErrNoLab):
			return err
		case err != nil:
			if !down {
				n.log.Info("nodes are not registered yet, or not renewed", "err", err)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				n.leave()
			}
			wait = rest
			rest, down = min(rest*3/2, lastRest), true
		default:
			if down {
				n.log.Info("nodes are registered and renewed")
			}
			rest, down = firstRest, false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.moved:
		case <-time.After(wait):
		}
	}
}

// round looks at all nodes once.
func (n *nodes) round(ctx context.Context) error {
	st, err := lab.ReadState(n.lab)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, roundPatience)
	defer cancel()
	list, err := n.api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	have := map[string]*corev1.Node{}
	for i := range list.Items {
		have[list.Items[i].Name] = &list.Items[i]
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, node := range played(st.Snapshot) {
		g.Go(func() error { return n.one(ctx, st.Snapshot, node, have[node.Name]) })
	}
	return g.Wait()
}

func (n *nodes) one(ctx context.Context, s *topology.Snapshot, node topology.NodeState, have *corev1.Node) error {
	now := time.Now()
	want, err := nodeObject(s, node, n.machine, metav1.NewTime(now))
	if err != nil {
		return fmt.Errorf("node %s: %w", node.Name, err)
	}
	api := n.api.CoreV1().Nodes()
	if have == nil {
		have, err = api.Create(ctx, want, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("register node %s: %w", node.Name, err)
		}
		n.log.Info("registered", "node", node.Name)
	}
	meta, status, err := nodePatches(have, want)
	if err == nil && meta != nil {
		_, err = api.Patch(ctx, node.Name, types.StrategicMergePatchType, meta, metav1.PatchOptions{})
	}
	if err == nil && status != nil {
		_, err = api.Patch(ctx, node.Name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	}
	if err != nil {
		return fmt.Errorf("update node %s: %w", node.Name, err)
	}
	return n.renew(ctx, have, metav1.NewMicroTime(now))
}

// renew says that the node lives.
func (n *nodes) renew(ctx context.Context, node *corev1.Node, now metav1.MicroTime) error {
	api := n.api.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"holderIdentity": node.Name, "leaseDurationSeconds": leaseSeconds, "renewTime": now}})
	if err != nil {
		return err
	}
	_, err = api.Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		seconds := int32(leaseSeconds)
		l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &node.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}}
		l.Name = node.Name
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
		_, err = api.Create(ctx, l, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("renew the lease of node %s: %w", node.Name, err)
	}
	return nil
}
