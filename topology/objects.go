package topology

import (
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects are the Kubernetes objects of a lab, in the order in which they were
// declared. It survives a round trip through JSON.
type Objects struct {
	Namespaces      []corev1.Namespace           `json:"namespaces,omitempty"`
	Pods            []corev1.Pod                 `json:"pods,omitempty"`
	Deployments     []appsv1.Deployment          `json:"deployments,omitempty"`
	ReplicaSets     []appsv1.ReplicaSet          `json:"replicaSets,omitempty"`
	DaemonSets      []appsv1.DaemonSet           `json:"daemonSets,omitempty"`
	StatefulSets    []appsv1.StatefulSet         `json:"statefulSets,omitempty"`
	Services        []corev1.Service             `json:"services,omitempty"`
	EndpointSlices  []discoveryv1.EndpointSlice  `json:"endpointSlices,omitempty"`
	NetworkPolicies []networkingv1.NetworkPolicy `json:"networkPolicies,omitempty"`

	builtinDNS bool // the lab's own DNS service is among them, see withDNS
}

// ObjectRef names an object. Namespace is empty for a Namespace.
type ObjectRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String is "Deployment/default/nginx".
func (r ObjectRef) String() string {
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}

// ObjectAction says what merging did to an object, in kubectl's words.
type ObjectAction string

// What became of an object.
const (
	ObjectCreated    ObjectAction = "created"
	ObjectConfigured ObjectAction = "configured"
	ObjectUnchanged  ObjectAction = "unchanged"
)

// ObjectChange is what merging did to one object.
type ObjectChange struct {
	ObjectRef
	Action ObjectAction `json:"action"`
}

// eachList calls fn with every list of a and the list of the same kind of b.
// It is the one place that spells out the kinds.
func eachList(a, b *Objects, fn func(a, b objectList)) {
	fn(listOf("Namespace", &a.Namespaces), listOf("Namespace", &b.Namespaces))
	fn(listOf("Pod", &a.Pods), listOf("Pod", &b.Pods))
	fn(listOf("Deployment", &a.Deployments), listOf("Deployment", &b.Deployments))
	fn(listOf("ReplicaSet", &a.ReplicaSets), listOf("ReplicaSet", &b.ReplicaSets))
	fn(listOf("DaemonSet", &a.DaemonSets), listOf("DaemonSet", &b.DaemonSets))
	fn(listOf("StatefulSet", &a.StatefulSets), listOf("StatefulSet", &b.StatefulSets))
	fn(listOf("Service", &a.Services), listOf("Service", &b.Services))
	fn(listOf("EndpointSlice", &a.EndpointSlices), listOf("EndpointSlice", &b.EndpointSlices))
	fn(listOf("NetworkPolicy", &a.NetworkPolicies), listOf("NetworkPolicy", &b.NetworkPolicies))
}

// objectList is one kind's list without its type.
type objectList interface {
	refs() []ObjectRef
	merge(from objectList) []ObjectChange
	remove(refs map[ObjectRef]bool)
}

// typedList is the list of objects of type T, kept where the Objects has it.
type typedList[T any, P interface {
	*T
	metav1.Object
}] struct {
	kind string
	list *[]T
}

func listOf[T any, P interface {
	*T
	metav1.Object
}](kind string, list *[]T) objectList {
	return typedList[T, P]{kind, list}
}

func (l typedList[T, P]) ref(i int) ObjectRef {
	o := P(&(*l.list)[i])
	return ObjectRef{Kind: l.kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

func (l typedList[T, P]) refs() []ObjectRef {
	out := make([]ObjectRef, len(*l.list))
	for i := range *l.list {
		out[i] = l.ref(i)
	}
	return out
}

func (l typedList[T, P]) merge(from objectList) []ObjectChange {
	have := make(map[ObjectRef]int, len(*l.list))
	for i := range *l.list {
		have[l.ref(i)] = i
	}
	var changes []ObjectChange
	src := from.(typedList[T, P])
	for j := range *src.list {
		ref, action := src.ref(j), ObjectCreated
		if i, ok := have[ref]; !ok {
			have[ref] = len(*l.list)
			*l.list = append(*l.list, (*src.list)[j])
		} else if reflect.DeepEqual((*l.list)[i], (*src.list)[j]) {
			action = ObjectUnchanged
		} else {
			(*l.list)[i], action = (*src.list)[j], ObjectConfigured
		}
		changes = append(changes, ObjectChange{ref, action})
	}
	return changes
}

func (l typedList[T, P]) remove(refs map[ObjectRef]bool) {
	kept := (*l.list)[:0:0]
	for i := range *l.list {
		if !refs[l.ref(i)] {
			kept = append(kept, (*l.list)[i])
		}
	}
	*l.list = kept
}

// Refs names all objects, by kind and in the order of declaration.
func (o *Objects) Refs() []ObjectRef {
	var out []ObjectRef
	eachList(o, o, func(a, _ objectList) { out = append(out, a.refs()...) })
	return out
}

// Merge adds the objects of more; those of the same kind, namespace and name
// are replaced in place. It reports what it did, object by object.
func (o *Objects) Merge(more *Objects) []ObjectChange {
	var changes []ObjectChange
	eachList(o, more, func(a, b objectList) { changes = append(changes, a.merge(b)...) })
	return changes
}

// Delete removes the named objects and reports which of them were there.
// Deleting a namespace deletes what is in it.
func (o *Objects) Delete(refs ...ObjectRef) []ObjectRef {
	gone, namespaces := map[ObjectRef]bool{}, map[string]bool{}
	for _, r := range refs {
		gone[r] = true
		if r.Kind == "Namespace" {
			namespaces[r.Name] = true
		}
	}
	var deleted []ObjectRef
	for _, r := range o.Refs() {
		if gone[r] || namespaces[r.Namespace] && r.Namespace != "" {
			gone[r] = true
			deleted = append(deleted, r)
		}
	}
	eachList(o, o, func(a, _ objectList) { a.remove(gone) })
	return deleted
}
