package topology

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LoadManifests reads Kubernetes manifests: YAML or JSON, any number of
// documents, lists included. Kinds that mean nothing to a lab are skipped with
// a warning. The error is a [Diagnostics] with every mistake in it.
func LoadManifests(name string, data []byte) (*Objects, []Warning, error) {
	doc := newDocument(name, data)
	l := &manifestLoader{doc: doc, objs: &Objects{}, seen: map[ObjectRef]int{}}
	docs := doc.parseYAML(data)
	for _, d := range docs {
		doc.places = map[string]position{}
		l.dec = newDecoder(doc, d.Body)
		l.object("", d.Body)
	}
	if len(docs) == 0 && len(doc.diags) == 0 {
		doc.report(SeverityWarning, position{1, 1}, "", "empty-file", "no objects in this file")
	}
	diags := doc.diags.sorted()
	if err := diags.Err(); err != nil {
		return nil, diags.Warnings(), err
	}
	return l.objs, diags.Warnings(), nil
}

// manifestLoader turns documents into objects.
type manifestLoader struct {
	doc  *document
	dec  *decoder
	objs *Objects
	seen map[ObjectRef]int // → line
	// legacy is set while an object of an old API version is loaded.
	legacy bool
}

// kindSpec is how one kind is loaded.
type kindSpec struct {
	kind     string
	versions []string // those of today
	legacy   []string // those that old tutorials use
	load     func(l *manifestLoader, path string, n ast.Node)
}

// kindSpecs are the kinds that mean something to a lab.
func kindSpecs() []kindSpec {
	oldApps := []string{"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"}
	return []kindSpec{
		{"Namespace", []string{"v1"}, nil, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "Namespace", &l.objs.Namespaces, nil)
		}},
		{"Pod", []string{"v1"}, nil, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "Pod", &l.objs.Pods, l.pod)
		}},
		{"Deployment", []string{"apps/v1"}, oldApps, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "Deployment", &l.objs.Deployments, l.deployment)
		}},
		{"ReplicaSet", []string{"apps/v1"}, oldApps, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "ReplicaSet", &l.objs.ReplicaSets, l.replicaSet)
		}},
		{"DaemonSet", []string{"apps/v1"}, oldApps, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "DaemonSet", &l.objs.DaemonSets, l.daemonSet)
		}},
		{"StatefulSet", []string{"apps/v1"}, oldApps, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "StatefulSet", &l.objs.StatefulSets, l.statefulSet)
		}},
		{"Service", []string{"v1"}, nil, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "Service", &l.objs.Services, l.service)
		}},
		{"EndpointSlice", []string{"discovery.k8s.io/v1"}, []string{"discovery.k8s.io/v1beta1"}, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "EndpointSlice", &l.objs.EndpointSlices, l.endpointSlice)
		}},
		{"Endpoints", []string{"v1"}, nil, (*manifestLoader).endpoints},
		{"NetworkPolicy", []string{"networking.k8s.io/v1"}, []string{"extensions/v1beta1"}, func(l *manifestLoader, p string, n ast.Node) {
			add(l, p, n, "NetworkPolicy", &l.objs.NetworkPolicies, l.networkPolicy)
		}},
	}
}

// ignoredLegacy are fields of old API versions that went away.
var ignoredLegacy = map[string]bool{
	"spec.rollbackTo": true, "spec.templateGeneration": true,
}

// object loads one document, or one item of a list.
func (l *manifestLoader) object(path string, n ast.Node) {
	var tm struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	n, leave := l.dec.enter(path, n)
	defer leave()
	if n == nil {
		return
	}
	if _, ok := n.(ast.MapNode); !ok {
		l.dec.errorAt(n, path, "wrong-type", "want a Kubernetes object, found %s", describe(n))
		return
	}
	before := len(l.doc.diags)
	for key, field := range map[string]*string{"apiVersion": &tm.APIVersion, "kind": &tm.Kind} {
		l.typeField(path, n, key, field)
	}
	if tm.Kind == "" || tm.APIVersion == "" {
		if len(l.doc.diags) == before {
			l.dec.errorAt(n, path, "missing-field", "a Kubernetes object needs apiVersion and kind")
		}
		return
	}
	if strings.HasSuffix(tm.Kind, "List") && l.items(path, n) {
		return
	}
	l.dispatch(path, n, tm.APIVersion, tm.Kind)
}

// typeField reads one text field of a mapping without complaining about others.
func (l *manifestLoader) typeField(path string, n ast.Node, key string, out *string) {
	for it := n.(ast.MapNode).MapRange(); it.Next(); {
		if text, ok := scalarText(it.Key()); ok && text == key {
			l.dec.value(fieldPath(path, key), it.Value(), reflect.ValueOf(out).Elem())
			return
		}
	}
}

// items loads the items of a List; false if there are none.
func (l *manifestLoader) items(path string, n ast.Node) bool {
	for it := n.(ast.MapNode).MapRange(); it.Next(); {
		if text, _ := scalarText(it.Key()); text != "items" {
			continue
		}
		if seq, ok := it.Value().(*ast.SequenceNode); ok {
			for i, item := range seq.Values {
				l.object(indexPath(fieldPath(path, "items"), i), item)
			}
			return true
		}
	}
	return false
}

func (l *manifestLoader) dispatch(path string, n ast.Node, apiVersion, kind string) {
	at := l.doc.locate(fieldPath(path, "apiVersion"))
	for _, s := range kindSpecs() {
		if s.kind != kind {
			continue
		}
		legacy := slices.Contains(s.legacy, apiVersion)
		if !legacy && !slices.Contains(s.versions, apiVersion) {
			continue
		}
		if legacy {
			l.doc.report(SeverityWarning, at, fieldPath(path, "apiVersion"), "old-api-version",
				"%s of %s is no longer served by Kubernetes; read as %s", kind, apiVersion, s.versions[0])
			l.legacy, l.dec.ignored = true, ignoredLegacy
			defer func() { l.legacy, l.dec.ignored = false, nil }()
		}
		s.load(l, path, n)
		return
	}
	l.doc.report(SeverityWarning, l.doc.locate(fieldPath(path, "kind")), fieldPath(path, "kind"), "skipped-kind",
		"%s of %s means nothing to a lab; skipped", kind, apiVersion)
}

// add decodes, checks and keeps one object.
func add[T any, P interface {
	*T
	metav1.Object
}](l *manifestLoader, path string, n ast.Node, kind string, list *[]T, check func(string, P)) {
	var obj T
	before := len(l.doc.diags.Errors())
	l.dec.value(path, n, reflect.ValueOf(&obj).Elem())
	if len(l.doc.diags.Errors()) > before {
		return
	}
	p := P(&obj)
	l.meta(path, kind, p)
	if check != nil {
		check(path, p)
	}
	ref := ObjectRef{Kind: kind, Namespace: p.GetNamespace(), Name: p.GetName()}
	line := l.doc.locate(fieldPath(path, "metadata")).line
	if first, dup := l.seen[ref]; dup {
		l.report(path+".metadata.name", "duplicate-object", "%s is declared a second time (first on line %d)", ref, first)
		return
	}
	l.seen[ref] = line
	*list = append(*list, obj)
}

// report adds an error at a path; a leading dot is dropped, so that callers
// can join paths to an empty one.
func (l *manifestLoader) report(path, code, format string, args ...any) {
	path = strings.TrimPrefix(path, ".")
	l.doc.report(SeverityError, l.doc.locate(path), path, code, format, args...)
}

func (l *manifestLoader) warn(path, code, format string, args ...any) {
	path = strings.TrimPrefix(path, ".")
	l.doc.report(SeverityWarning, l.doc.locate(path), path, code, format, args...)
}

// endpoints loads the older form of an EndpointSlice and converts it, as the
// endpointslice-mirroring controller does.
func (l *manifestLoader) endpoints(path string, n ast.Node) {
	var list []corev1.Endpoints //nolint:staticcheck // deprecated by Kubernetes, still in tutorials
	add(l, path, n, "Endpoints", &list, l.endpointsAddresses)
	for _, e := range list {
		l.objs.EndpointSlices = append(l.objs.EndpointSlices, mirrorEndpoints(e)...)
	}
}

// mirrorEndpoints makes one slice of each subset.
func mirrorEndpoints(e corev1.Endpoints) []discoveryv1.EndpointSlice { //nolint:staticcheck // see endpoints
	var out []discoveryv1.EndpointSlice
	for i, sub := range e.Subsets {
		s := discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
		s.Name, s.Namespace = fmt.Sprintf("%s-mirrored-%d", e.Name, i), e.Namespace
		s.Labels = map[string]string{discoveryv1.LabelServiceName: e.Name}
		for _, p := range sub.Ports {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol})
		}
		for j, a := range slices.Concat(sub.Addresses, sub.NotReadyAddresses) {
			ready := j < len(sub.Addresses)
			ep := discoveryv1.Endpoint{Addresses: []string{a.IP}, NodeName: a.NodeName, TargetRef: a.TargetRef}
			ep.Conditions.Ready = &ready
			s.Endpoints = append(s.Endpoints, ep)
		}
		out = append(out, s)
	}
	return out
}
