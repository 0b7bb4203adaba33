package topology

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func refs(o *Objects) []string {
	var out []string
	for _, r := range o.Refs() {
		out = append(out, r.String())
	}
	return out
}

func TestOldTutorialsLoadWithAWarning(t *testing.T) {
	data, err := os.ReadFile("../examples/nginx.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objs, warnings, err := LoadManifests("nginx.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].Code != "old-api-version" || warnings[0].Line != 3 {
		t.Errorf("warnings %v", warnings)
	}
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	svc := serviceNamed(t, snap, "default/nginx-svc")
	if p := svc.Ports[0]; svc.Type != NodePort || p.Port != 8080 || p.NodePort != 30000 || len(p.Endpoints) != 3 || p.Endpoints[0].Port != 80 {
		t.Errorf("service %+v", svc)
	}
	if d := cmp.Diff(map[string]int{"node01": 2, "node02": 1}, perNode(snap)); d != "" {
		t.Errorf("pods a node (-want +got)\n%s", d)
	}
}

func TestListsAndDocumentsInOneFile(t *testing.T) {
	objs := manifests(t, `
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
  - {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}, spec: {containers: [{name: c}]}}
---
# an empty document
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": [{"name": "c"}]}}
---
---
apiVersion: v1
kind: PodList
items:
  - {apiVersion: v1, kind: Pod, metadata: {name: c}, spec: {containers: [{name: c}]}}
...
%YAML 1.2
---
{apiVersion: v1, kind: Pod, metadata: {name: d}, spec: {containers: [{name: c}]}}
...
{apiVersion: v1, kind: Pod, metadata: {name: e}, spec: {containers: [{name: c}]}}
---
`)
	if d := cmp.Diff([]string{"Namespace/shop", "Pod/shop/a", "Pod/default/b", "Pod/default/c", "Pod/default/d", "Pod/default/e"}, refs(objs)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestMergeAndDelete(t *testing.T) {
	pod := func(name, label string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: " + name + ", labels: {v: " + label + "}}, spec: {containers: [{name: c}]}}\n---\n"
	}
	objs := manifests(t, pod("a", "one")+pod("b", "one")+deployment("web", 1, ""))
	changes := objs.Merge(manifests(t, pod("b", "two")+pod("a", "one")+pod("c", "one")))
	got := map[string]ObjectAction{}
	for _, c := range changes {
		got[c.String()] = c.Action
	}
	want := map[string]ObjectAction{
		"Pod/default/a": ObjectUnchanged, "Pod/default/b": ObjectConfigured, "Pod/default/c": ObjectCreated,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("changes (-want +got)\n%s", d)
	}
	if objs.Pods[1].Name != "b" || objs.Pods[1].Labels["v"] != "two" {
		t.Errorf("b is %+v, want the new one in its old place", objs.Pods[1].ObjectMeta)
	}

	deleted := objs.Delete(
		ObjectRef{"Pod", "default", "a"}, ObjectRef{"Pod", "other", "b"}, ObjectRef{"Deployment", "default", "web"})
	if d := cmp.Diff([]ObjectRef{{"Pod", "default", "a"}, {"Deployment", "default", "web"}}, deleted); d != "" {
		t.Errorf("deleted (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]string{"Pod/default/b", "Pod/default/c"}, refs(objs)); d != "" {
		t.Errorf("left (-want +got)\n%s", d)
	}
}

func TestDeletingANamespaceDeletesWhatIsInIt(t *testing.T) {
	objs := manifests(t, `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}, spec: {containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c}]}}
`)
	if n := len(objs.Delete(ObjectRef{Kind: "Namespace", Name: "shop"})); n != 2 {
		t.Errorf("%d objects deleted, want 2", n)
	}
	if d := cmp.Diff([]string{"Pod/default/a"}, refs(objs)); d != "" {
		t.Errorf("left (-want +got)\n%s", d)
	}
}

// TestObjectsKeepWorkingAfterJSON: what is stored with a lab allocates as what
// was loaded.
func TestObjectsKeepWorkingAfterJSON(t *testing.T) {
	c, objs := loadExample(t, "../examples/demo.yaml")
	data, err := json.Marshal(objs)
	if err != nil {
		t.Fatal(err)
	}
	var stored Objects
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	a, _ := allocate(t, c, objs, nil)
	b, _ := allocate(t, c, &stored, nil)
	if d := cmp.Diff(a, b, addrs); d != "" {
		t.Errorf("(-loaded +stored)\n%s", d)
	}
	if pods, svcs := len(userPods(a)), len(a.Services); pods != 6 || svcs != 3 {
		t.Errorf("the demo has %d pods and %d services, want 6 and 2 with the DNS", pods, svcs)
	}
}

func TestManifestsAreFoundBesideTheClusterFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("c.yaml", "{apiVersion: slipway/v1alpha1, kind: Cluster, metadata: {name: c}, spec: {manifests: [pod.yaml]}}")
	write("pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c}]}}")
	c, diags, err := Load(filepath.Join(dir, "c.yaml"))
	if err != nil || diags.Err() != nil {
		t.Fatal(err, diags)
	}
	if len(c.Spec.Manifests) != 1 || ManifestPath(dir, c.Spec.Manifests[0]) != filepath.Join(dir, "pod.yaml") {
		t.Errorf("manifests %v", c.Spec.Manifests)
	}
	if _, _, err := Load(filepath.Join(dir, "nothing.yaml")); err == nil {
		t.Error("a file that is not there was read")
	}
}

// BenchmarkLoadManifests reads 1,000 pods: as documents, and as one list on one
// line, as minified JSON comes.
func BenchmarkLoadManifests(b *testing.B) {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p%d"},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}]}]}}`
	var docs, list strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&docs, pod+"\n---\n", i)
		fmt.Fprintf(&list, pod+",", i)
	}
	for name, text := range map[string]string{
		"documents": docs.String(),
		"one line":  `{"apiVersion":"v1","kind":"List","items":[` + strings.TrimSuffix(list.String(), ",") + "]}",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if objs := manifests(b, text); len(objs.Pods) != 1000 {
					b.Fatalf("%d pods", len(objs.Pods))
				}
			}
		})
	}
}
