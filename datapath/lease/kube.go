package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Annotations of a Node: flannel's own (flannel pkg/subnet/kube/annotations.go,
// with its default prefix), and ours for the blocks of the calico modes, "CIDR,CIDR".
const (
	BackendTypeAnnotation = "flannel.alpha.coreos.com/backend-type"
	BackendDataAnnotation = "flannel.alpha.coreos.com/backend-data"
	PublicIPAnnotation    = "flannel.alpha.coreos.com/public-ip"
	ManagedAnnotation     = "flannel.alpha.coreos.com/kube-subnet-manager"
	BlocksAnnotation      = "slipway/blocks"
)

// Kube is the registry that the API's Node objects are. In the flannel modes a
// node's lease is its spec.podCIDR, and flannel's annotations say where it is;
// in the calico modes its blocks are an annotation, and its InternalIP counts.
type Kube struct {
	client kubernetes.Interface
	node   string
	calico bool
	log    *slog.Logger
}

// callPatience bounds one call to a registry.
const callPatience = 10 * time.Second

// OpenKube prepares to use the API that the kubeconfig names, or, if it is
// empty, that of the pod that this process runs in. Nothing is asked yet.
func OpenKube(kubeconfig, node string, calico bool, log *slog.Logger) (*Kube, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.UserAgent = "slipway-agent"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return &Kube{client: client, node: node, calico: calico, log: log}, nil
}

// Self is what the API has for the node: its address, if it is known already,
// and its subnet or blocks. ErrUnplanned if nobody has planned it yet.
func (k *Kube) Self(ctx context.Context) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	n, err := k.client.CoreV1().Nodes().Get(ctx, k.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Lease{}, fmt.Errorf("node %s is not registered: %w", k.node, ErrUnplanned)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("read node %s: %w", k.node, err)
	}
	l := Lease{Node: k.node, Address: internalIP(n)}
	if k.calico {
		if l.Blocks, err = blocks(n); err == nil && len(l.Blocks) == 0 {
			err = fmt.Errorf("node %s: annotation %s: %w", k.node, BlocksAnnotation, ErrUnplanned)
		}
		return l, err
	}
	l.Subnet, err = podCIDR(n)
	return l, err
}

// Claim writes the node's annotations. The lease must be that of Self.
func (k *Kube) Claim(ctx context.Context, l Lease) (Lease, error) {
	if k.calico {
		return l, nil // all that others read is there
	}
	data, err := l.backendData()
	if err == nil && data == nil {
		data = json.RawMessage("null") // as flanneld writes for backends without
	}
	if err != nil {
		return l, err
	}
	return l, k.annotate(ctx, map[string]any{
		BackendTypeAnnotation: l.Backend, BackendDataAnnotation: string(data),
		PublicIPAnnotation: l.Address.String(), ManagedAnnotation: "true",
	})
}

// Release takes the annotations away, so that other nodes forget this one. A
// Node object that is gone has none.
func (k *Kube) Release(ctx context.Context, _ Lease) error {
	if k.calico {
		return nil // the blocks are the installer's
	}
	err := k.annotate(ctx, map[string]any{
		BackendTypeAnnotation: nil, BackendDataAnnotation: nil, PublicIPAnnotation: nil, ManagedAnnotation: nil,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// annotate patches the status, for which flannel's role has the right
// (flannel Documentation/kube-flannel.yml, ClusterRole).
func (k *Kube) annotate(ctx context.Context, annotations map[string]any) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Nodes().Patch(ctx, k.node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("annotate node %s: %w", k.node, err)
	}
	return nil
}

// Follow calls changed with the leases of all nodes, first when they are known
// and then whenever they are others, until ctx ends. While the API is out of
// reach nothing is called and the client tries again by itself.
func (k *Kube) Follow(ctx context.Context, changed func([]Lease)) error {
	f := informers.NewSharedInformerFactoryWithOptions(k.client, 0, informers.WithTransform(slim))
	nodes := f.Core().V1().Nodes()
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	informer := nodes.Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
	})
	if err == nil {
		err = informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) { k.log.Warn("follow the nodes", "err", err) })
	}
	if err != nil {
		return fmt.Errorf("follow the nodes: %w", err)
	}
	f.Start(ctx.Done())
	defer f.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return ctx.Err()
	}
	lister := nodes.Lister()
	var last []Lease
	for first := true; ; first = false {
		now, err := k.leases(lister)
		if err != nil {
			return err
		}
		if first || !slices.EqualFunc(now, last, Lease.Equal) {
			last = now
			changed(now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-woken:
		}
	}
}

// slim drops what fills memory and is never read.
func slim(obj any) (any, error) {
	if n, ok := obj.(*corev1.Node); ok {
		n.ManagedFields, n.Status.Images = nil, nil
	}
	return obj, nil
}

// leases are those of the nodes that have one. One that cannot be read is said
// and left out, so that it does not keep the others away.
func (k *Kube) leases(from listers.NodeLister) ([]Lease, error) {
	all, err := from.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var out []Lease
	for _, n := range all {
		l, ok, err := k.leaseOf(n)
		if err != nil {
			k.log.Warn("a node's lease cannot be read", "node", n.Name, "err", err)
		} else if ok {
			out = append(out, l)
		}
	}
	return sorted(out), nil
}

// leaseOf reads a node; ok is false if it has no lease, or no agent yet.
func (k *Kube) leaseOf(n *corev1.Node) (l Lease, ok bool, err error) {
	l.Node = n.Name
	if k.calico {
		l.Address = internalIP(n)
		l.Blocks, err = blocks(n)
		return l, l.Address.IsValid() && len(l.Blocks) > 0, err
	}
	a := n.Annotations
	if a[ManagedAnnotation] != "true" || n.Spec.PodCIDR == "" {
		return l, false, nil
	}
	if l.Subnet, err = podCIDR(n); err != nil {
		return l, false, err
	}
	if l.Address, err = netip.ParseAddr(a[PublicIPAnnotation]); err != nil {
		return l, false, fmt.Errorf("annotation %s: %w", PublicIPAnnotation, err)
	}
	l.Backend = backendOf(a[BackendTypeAnnotation])
	return l, true, l.setBackendData([]byte(a[BackendDataAnnotation]))
}

// podCIDR is the node's IPv4 pod range.
func podCIDR(n *corev1.Node) (netip.Prefix, error) {
	for _, s := range slices.Concat([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs) {
		if s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return p, fmt.Errorf("podCIDR of node %s: %w", n.Name, err)
		}
		if p.Addr().Is4() {
			return p.Masked(), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("node %s: spec.podCIDR: %w", n.Name, ErrUnplanned)
}

// internalIP is the node's first IPv4 InternalIP; the zero Addr if it has none yet.
func internalIP(n *corev1.Node) netip.Addr {
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() {
			return ip
		}
	}
	return netip.Addr{}
}

// blocks reads the annotation.
func blocks(n *corev1.Node) ([]netip.Prefix, error) {
	var out []netip.Prefix
	var errs []error
	for s := range strings.SplitSeq(n.Annotations[BlocksAnnotation], ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err == nil && (!p.Addr().Is4() || p != p.Masked()) {
			err = fmt.Errorf("%s is no IPv4 network", s)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("annotation %s of node %s: %w", BlocksAnnotation, n.Name, err))
			continue
		}
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}
