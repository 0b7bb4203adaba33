package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"slipway/topology"
)

func twoRacks(t *testing.T) *topology.Snapshot {
	t.Helper()
	c, diags := topology.Parse("test", []byte(`
apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: racks}
spec:
  network: {mode: calico-bgp}
  underlay:
    segments: [{name: a, subnet: 192.168.1.0/24}, {name: b, subnet: 192.168.2.0/24}]
    routers: [{name: r1, segments: [a, b]}]
  nodes:
    - {name: n-1, roles: [worker], segment: a}
    - {name: n-2, roles: [worker], segment: b}
`))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	objs, _, err := topology.LoadManifests("test", []byte(`
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-svc}
spec: {selector: {app: web}, ports: [{port: 80}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := topology.Allocate(c, objs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every drawing names everything there is: a reader must not miss a machine.
func TestEveryFormatShowsEverything(t *testing.T) {
	s := twoRacks(t)
	for _, f := range Formats() {
		var b bytes.Buffer
		if err := Write(&b, f, s); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, want := range []string{"r1", "n-1", "n-2", "192.168.1.10", "192.168.2.10", "web", "web-svc", s.Pods[0].Address.String(), s.Services[0].ClusterIP.String()} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s lacks %q", f, want)
			}
		}
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, SVG, twoRacks(t)); err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(&b)
	for {
		_, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Mermaid and DOT give "-" and "." a meaning of their own, so identifiers must
// hold neither, while labels show the real names.
func TestIdentifiersAreSafe(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, Mermaid, twoRacks(t)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "node_n-1") || !strings.Contains(b.String(), "node_n_1[\"n-1 ") {
		t.Errorf("identifiers are not safe:\n%s", b.String())
	}
}

func TestUnknownFormat(t *testing.T) {
	if err := Write(io.Discard, "png", twoRacks(t)); err == nil {
		t.Fatal("an unknown format must be an error")
	}
}
