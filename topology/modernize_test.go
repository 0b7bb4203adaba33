package topology

import (
	"strings"
	"testing"
)

func TestModernize(t *testing.T) {
	const old = `# as in 2016
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata:
      labels: {app: web}
    spec:
      containers: [{name: web, image: nginx}]
--- # what follows is of today
apiVersion: v1
kind: Service
metadata: {name: web}   # stays as it is written
spec: {selector: {app: web}, ports: [{port: 80}]}
`
	text, done, err := Modernize([]byte(old))
	if err != nil || len(done) != 1 || done[0].String() != "Deployment/web" {
		t.Fatalf("%v, %v", done, err)
	}
	objects, warnings, err := LoadManifests("web.yaml", text)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v, %v in\n%s", warnings, err, text)
	}
	if d := objects.Deployments[0]; d.Spec.Selector.MatchLabels["app"] != "web" || *d.Spec.Replicas != 2 {
		t.Errorf("%+v", d.Spec)
	}
	if !strings.Contains(string(text), "# stays as it is written") {
		t.Errorf("the service was rewritten:\n%s", text)
	}
	if again, done, err := Modernize(text); err != nil || len(done) > 0 || string(again) != string(text) {
		t.Errorf("what is of today was rewritten: %v, %v", done, err)
	}
	const selected = "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: a, namespace: b}\nspec: {selector: {matchLabels: {x: y}}, template: {metadata: {labels: {x: y, z: w}}}}\n"
	text, done, err = Modernize([]byte(selected))
	if err != nil || len(done) != 1 || done[0].String() != "Deployment/b/a" || strings.Count(string(text), "z: w") != 1 {
		t.Errorf("a selector that is there was not kept: %v, %v\n%s", done, err, text)
	}
}
