package realproxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"slipway/internal/netns"
)

// API serves lists and watches of objects by HTTP in a namespace, in protobuf
// as a real API server does. It is all that kube-proxy needs.
type API struct {
	listener net.Listener
	server   *http.Server

	mu      sync.Mutex
	version int           // of the newest change
	kinds   []*kind       // by path
	changed chan struct{} // closed and replaced by every change
}

// kind is one kind's objects.
type kind struct {
	path    string
	version schema.GroupVersion
	name    string
	list    runtime.Object // an empty one, to copy
	single  Object         // likewise
	objects []Object
	events  []event // everything that changed since the start
}

// event is a change of an object: no before if it is new, no after if it is gone.
type event struct {
	version       int
	before, after Object
}

func kinds() []*kind {
	core, discovery, networking := corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, networkingv1.SchemeGroupVersion
	out := []*kind{
		{path: "/api/v1/nodes", version: core, name: "Node", list: &corev1.NodeList{}, single: &corev1.Node{}},
		{path: "/api/v1/services", version: core, name: "Service", list: &corev1.ServiceList{}, single: &corev1.Service{}},
		{
			path: "/apis/discovery.k8s.io/v1/endpointslices", version: discovery, name: "EndpointSlice",
			list: &discoveryv1.EndpointSliceList{}, single: &discoveryv1.EndpointSlice{},
		},
		{
			path: "/apis/networking.k8s.io/v1/servicecidrs", version: networking, name: "ServiceCIDR",
			list: &networkingv1.ServiceCIDRList{}, single: &networkingv1.ServiceCIDR{},
		},
	}
	for _, k := range out {
		k.single.GetObjectKind().SetGroupVersionKind(k.version.WithKind(k.name))
		k.list.GetObjectKind().SetGroupVersionKind(k.version.WithKind(k.name + "List"))
	}
	return out
}

// Serve starts an API server on a free port of ns' loopback address, which must
// be up.
func Serve(ns *netns.NS, objects []Object) (*API, error) {
	a := &API{version: 1, kinds: kinds(), changed: make(chan struct{})}
	for _, o := range objects {
		if err := a.Put(o); err != nil {
			return nil, err
		}
	}
	err := ns.Do(func() (err error) {
		a.listener, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve the API in %s: %w", ns.Name(), err)
	}
	mux := http.NewServeMux()
	for _, k := range a.kinds {
		mux.HandleFunc("GET "+k.path, func(w http.ResponseWriter, r *http.Request) { a.get(w, r, k) })
	}
	// Events are taken and forgotten.
	mux.HandleFunc("POST /apis/events.k8s.io/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "events are not kept", http.StatusForbidden)
	})
	a.server = &http.Server{Handler: mux}
	go func() { _ = a.server.Serve(a.listener) }() // ends with Close
	return a, nil
}

// URL is the server's address within its namespace.
func (a *API) URL() string { return "http://" + a.listener.Addr().String() }

// Close ends the server and all watches.
func (a *API) Close() error { return a.server.Close() }

// Put adds an object, or replaces the one of its name; watchers are told. The
// object is the API server's from then on.
func (a *API) Put(o Object) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, err := a.kindOf(o)
	if err != nil {
		return err
	}
	if a.listener == nil { // nobody watches yet, and no two have one name
		a.version++
		o.SetResourceVersion(strconv.Itoa(a.version))
		k.objects = append(k.objects, o)
		return nil
	}
	a.put(k, o)
	a.tell()
	return nil
}

// Replace makes these the services and endpoint slices, in one change: those of
// the same name that differ are replaced in the given order, all others go.
func (a *API) Replace(objects []Object) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.kinds {
		if k.name == "Service" || k.name == "EndpointSlice" {
			for _, o := range slices.Clone(k.objects) {
				if index(objects, o) < 0 {
					a.remove(k, o)
				}
			}
		}
	}
	for _, o := range objects {
		k, err := a.kindOf(o)
		if err != nil {
			return err
		}
		if i := index(k.objects, o); i >= 0 {
			o.SetResourceVersion(k.objects[i].GetResourceVersion())
			if equality.Semantic.DeepEqual(k.objects[i], o) {
				continue
			}
		}
		a.put(k, o)
	}
	a.tell()
	return nil
}

// index finds the object of the same kind and name; -1 if there is none.
func index(objects []Object, o Object) int {
	return slices.IndexFunc(objects, func(x Object) bool {
		return x.GetName() == o.GetName() && x.GetNamespace() == o.GetNamespace() &&
			x.GetObjectKind().GroupVersionKind() == o.GetObjectKind().GroupVersionKind()
	})
}

func (a *API) put(k *kind, o Object) {
	a.version++
	o.SetResourceVersion(strconv.Itoa(a.version))
	e := event{version: a.version, after: o}
	if i := index(k.objects, o); i < 0 {
		k.objects = append(k.objects, o)
	} else {
		e.before, k.objects[i] = k.objects[i], o
	}
	k.events = append(k.events, e)
}

func (a *API) remove(k *kind, o Object) {
	a.version++
	k.objects = slices.Delete(k.objects, index(k.objects, o), index(k.objects, o)+1)
	k.events = append(k.events, event{version: a.version, before: o})
}

// tell wakes the watchers.
func (a *API) tell() {
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *API) kindOf(o Object) (*kind, error) {
	for _, k := range a.kinds {
		if k.version.WithKind(k.name) == o.GetObjectKind().GroupVersionKind() {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the API server has no place for a %s", o.GetObjectKind().GroupVersionKind())
}

func (a *API) get(w http.ResponseWriter, r *http.Request, k *kind) {
	want, err := selection(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q := r.URL.Query()
	if q.Get("watch") == "true" || q.Get("watch") == "1" {
		a.watch(w, r, k, want)
		return
	}
	a.mu.Lock()
	list, version := k.list.DeepCopyObject(), a.version
	var items []runtime.Object
	for _, o := range k.objects {
		if want(o) {
			items = append(items, o)
		}
	}
	a.mu.Unlock()
	err = meta.SetList(list, items)
	if err == nil {
		err = writeList(w, list, version)
	}
	if err != nil && !errors.Is(err, r.Context().Err()) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// selection reads the selectors of a request: labels, and the two fields that
// kube-proxy selects by.
func selection(r *http.Request) (func(Object) bool, error) {
	byLabel, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		return nil, fmt.Errorf("labelSelector: %w", err)
	}
	byField, err := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	if err != nil {
		return nil, fmt.Errorf("fieldSelector: %w", err)
	}
	return func(o Object) bool {
		has := fields.Set{"metadata.name": o.GetName()}
		if s, ok := o.(*corev1.Service); ok {
			has["spec.clusterIP"] = s.Spec.ClusterIP
		}
		return byLabel.Matches(labels.Set(o.GetLabels())) && byField.Matches(has)
	}, nil
}
