package topology

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// addSeeds adds the files of some patterns to a fuzz test's corpus.
func addSeeds(f *testing.F, patterns ...string) {
	for _, p := range patterns {
		paths, err := filepath.Glob(p)
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seeds in %s: %v", p, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
}

// checkPlaces: every diagnostic points into the file and can be rendered.
func checkPlaces(t *testing.T, data []byte, diags Diagnostics) {
	t.Helper()
	doc := newDocument("f", data)
	for _, d := range diags {
		if d.Line < 1 || d.Line > len(doc.lines) || d.Col < 1 || d.Col > utf8.RuneCountInString(doc.lines[d.Line-1])+1 {
			t.Errorf("outside the file: %+v", d)
		}
		if d.Code == "" || d.Detail == "" {
			t.Errorf("says nothing: %+v", d)
		}
	}
	_ = diags.Error()
}

// FuzzParse: never panics; complaints point into the file; what is accepted
// allocates without a panic, and parses equal when written out.
func FuzzParse(f *testing.F) {
	addSeeds(f, "../testdata/err/*.yaml", "../examples/*.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		c, diags := Parse("f", data)
		checkPlaces(t, data, diags)
		if c == nil {
			if diags.Err() == nil {
				t.Error("neither a cluster nor an error")
			}
			return
		}
		if _, _, err := Allocate(c, nil, nil); err != nil {
			t.Errorf("accepted, but cannot be allocated: %v", err)
		}
		again, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		c2, diags := Parse("f", again)
		if err := diags.Err(); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		if d := cmp.Diff(c, c2, addrs, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("differs when written and read again\n%s\n%s", d, again)
		}
	})
}

// FuzzManifests: never panics; complaints point into the file; what is accepted
// allocates or is refused, without a panic, and survives JSON.
func FuzzManifests(f *testing.F) {
	addSeeds(f, "../testdata/err/manifests/*.yaml", "../testdata/err/manifests/*.json", "../examples/*.yaml")
	c, diags := Parse("f", []byte("{apiVersion: slipway/v1alpha1, kind: Cluster, metadata: {name: f}}"))
	if c == nil {
		f.Fatal(diags)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, warnings, err := LoadManifests("f", data)
		checkPlaces(t, data, warnings)
		if err != nil {
			var diags Diagnostics
			if !errors.As(err, &diags) {
				t.Fatalf("%T: %v", err, err)
			}
			checkPlaces(t, data, diags)
			return
		}
		few := 0
		for _, d := range objs.Deployments {
			few += replicas(d.Spec.Replicas)
		}
		for _, d := range objs.ReplicaSets {
			few += replicas(d.Spec.Replicas)
		}
		for _, d := range objs.StatefulSets {
			few += replicas(d.Spec.Replicas)
		}
		if few < 1000 { // more only costs time
			_, _, _ = Allocate(c, objs, nil)
		}
	})
}
