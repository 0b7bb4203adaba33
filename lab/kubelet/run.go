package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"slipway/installer/components"
	"slipway/internal/filelock"
	"slipway/lab"
	"slipway/lab/kubeapi"
	"slipway/topology"
)

// Options says for which lab to run.
type Options struct {
	Lab string
	Log *slog.Logger
	// Beside run along, of one lab once like the rest; the end of any is the end
	// of all.
	Beside []func(context.Context) error
}

// ErrRunning reports that another process does this for the lab already.
var ErrRunning = errors.New("another process plays this lab's kubelets")

// Run connects a lab with its API until ctx ends or the lab is gone. The API may
// be away for any time, from the beginning on.
func Run(ctx context.Context, o Options) error {
	release, err := lockLab(o.Lab)
	if err != nil {
		return err
	}
	defer release()
	klog.SetSlogLogger(o.Log.WithGroup("client")) // of what the client library says
	parts, err := partsOf(o)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, fn := range o.Beside {
		g.Go(func() error { return ended(ctx, fn(ctx)) })
	}
	for _, fn := range parts {
		g.Go(func() error { return fn(ctx) })
	}
	if err := g.Wait(); !errors.Is(err, lab.ErrNoLab) && !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

// partsOf are what has to run for a lab.
func partsOf(o Options) ([]func(context.Context) error, error) {
	st, err := lab.ReadState(o.Lab)
	if err != nil {
		return nil, err
	}
	access, err := kubeapi.Open(o.Lab)
	if err != nil {
		return nil, err
	}
	api, err := access.Client()
	if err != nil {
		return nil, err
	}
	w := newWatched()
	parts := w.follow(api)
	if st.Cluster.Spec.Components == topology.ComponentsFull {
		f := &full{loop: loop{world: world{lab: o.Lab}, have: w, log: o.Log}}
		return append(parts, f.run), nil
	}
	k8s, err := components.Find("kubernetes")
	if err != nil {
		return nil, err
	}
	machine, err := thisMachine(k8s.Version)
	if err != nil {
		return nil, err
	}
	l := newLight(o.Lab, api, w, o.Log)
	n := &nodes{lab: o.Lab, api: api, machine: machine, log: o.Log, leave: access.Leave, moved: l.moved}
	return append(parts, n.keep, l.run), nil
}

// errEnded ends the others when one part ended well.
var errEnded = errors.New("ended")

func ended(ctx context.Context, err error) error {
	if err == nil && ctx.Err() == nil {
		return errEnded
	}
	return err
}

// lockLab makes this process the only one for the lab.
func lockLab(name string) (release func(), err error) {
	f, err := filelock.Try(filepath.Join(lab.Dir(name), "kubelets.lock"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("lab %q: %w", name, lab.ErrNoLab)
	case errors.Is(err, filelock.ErrHeld):
		return nil, fmt.Errorf("lab %s: %w", name, ErrRunning)
	case err != nil:
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	return func() { _ = f.Close() }, nil
}

// watched is what the API has of that which concerns a lab.
type watched struct {
	wake     chan struct{}
	pods     *table[*corev1.Pod]
	services *table[*corev1.Service]
	slices   *table[*discoveryv1.EndpointSlice]
}

func newWatched() *watched {
	w := &watched{wake: make(chan struct{}, 1)}
	w.pods, w.services, w.slices = newTable[*corev1.Pod](w.changed), newTable[*corev1.Service](w.changed), newTable[*discoveryv1.EndpointSlice](w.changed)
	return w
}

// changed wakes whoever follows.
func (w *watched) changed() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// follow are the parts that keep it equal to what the API has.
func (w *watched) follow(api kubernetes.Interface) []func(context.Context) error {
	return []func(context.Context) error{
		func(ctx context.Context) error {
			return w.pods.follow(ctx, api.CoreV1().RESTClient(), "pods", "spec.nodeName!=")
		},
		func(ctx context.Context) error {
			return w.services.follow(ctx, api.CoreV1().RESTClient(), "services", "")
		},
		func(ctx context.Context) error {
			return w.slices.follow(ctx, api.DiscoveryV1().RESTClient(), "endpointslices", "")
		},
	}
}

// now is everything; ok is false before all of it has come once.
func (w *watched) now() (pods []*corev1.Pod, services []*corev1.Service, slices []*discoveryv1.EndpointSlice, ok bool) {
	pods, a := w.pods.all()
	services, b := w.services.all()
	slices, c := w.slices.all()
	return pods, services, slices, a && b && c
}
