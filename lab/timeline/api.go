package timeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"slipway/lab/kubeapi"
)

// watcher is what every client of a kind of objects can do.
type watcher interface {
	Watch(context.Context, meta.ListOptions) (apiwatch.Interface, error)
}

// api follows the objects that an apply sets in motion.
func (w *watch) api(ctx context.Context, ready func()) error {
	access, err := kubeapi.Client(w.st.Lab)
	if err != nil {
		return err
	}
	version := ""
	list, err := access.CoreV1().Namespaces().List(ctx, meta.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Errorf("ask the API of lab %s: %w", w.st.Lab, err)
	}
	version = list.ResourceVersion
	kinds := map[string]watcher{
		"deployment": access.AppsV1().Deployments(""), "replicaset": access.AppsV1().ReplicaSets(""), "pod": access.CoreV1().Pods(""),
		"service": access.CoreV1().Services(""), "endpointslice": access.DiscoveryV1().EndpointSlices(""),
	}
	g, ctx := errgroup.WithContext(ctx)
	for kind, c := range kinds {
		// From one revision of etcd on: what comes later is told, however late the
		// connection is made.
		events, err := c.Watch(ctx, meta.ListOptions{ResourceVersion: version})
		if err != nil {
			return fmt.Errorf("watch %ss of lab %s: %w", kind, w.st.Lab, err)
		}
		g.Go(func() error {
			defer events.Stop()
			w.follow(ctx, kind, events)
			return nil
		})
	}
	ready()
	return g.Wait()
}

// follow says what changes of the objects of one kind.
func (w *watch) follow(ctx context.Context, kind string, events apiwatch.Interface) {
	last := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events.ResultChan():
			if !ok {
				return
			}
			m, ok := e.Object.(meta.Object)
			if !ok {
				continue
			}
			name := m.GetName()
			if n := m.GetNamespace(); n != "default" {
				name = n + "/" + name
			}
			text := describe(e.Object)
			switch {
			case e.Type == apiwatch.Deleted:
				text = "deleted"
			case e.Type == apiwatch.Added:
				text = "created: " + text
			case m.GetDeletionTimestamp() != nil:
				text = "is to go: " + text
			}
			if last[name] != text {
				w.say(time.Now(), API, kind, "%s %s", name, text)
			}
			last[name] = text
		}
	}
}

// describe is what an object says that others act on.
func describe(o runtime.Object) string {
	switch o := o.(type) {
	case *apps.Deployment:
		wanted := int32(1)
		if o.Spec.Replicas != nil {
			wanted = *o.Spec.Replicas
		}
		return fmt.Sprintf("%d wanted, %d there, %d ready", wanted, o.Status.Replicas, o.Status.ReadyReplicas)
	case *apps.ReplicaSet:
		wanted := int32(1)
		if o.Spec.Replicas != nil {
			wanted = *o.Spec.Replicas
		}
		return fmt.Sprintf("%d wanted, %d there, %d ready", wanted, o.Status.Replicas, o.Status.ReadyReplicas)
	case *core.Pod:
		return describePod(o)
	case *core.Service:
		return fmt.Sprintf("%s %s", o.Spec.Type, o.Spec.ClusterIP)
	case *discovery.EndpointSlice:
		return describeSlice(o)
	}
	return ""
}

func describePod(p *core.Pod) string {
	out := []string{string(p.Status.Phase)}
	if p.Spec.NodeName == "" {
		out = append(out, "no node yet")
	} else {
		out = append(out, "on "+p.Spec.NodeName)
	}
	if p.Status.PodIP != "" {
		out = append(out, p.Status.PodIP)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == core.PodReady && c.Status == core.ConditionTrue {
			out = append(out, "ready")
		}
	}
	return strings.Join(out, ", ")
}

func describeSlice(s *discovery.EndpointSlice) string {
	var out []string
	for _, e := range s.Endpoints {
		text := strings.Join(e.Addresses, " ")
		if e.Conditions.Ready == nil || !*e.Conditions.Ready {
			text += " (not ready)"
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return "no endpoints"
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
