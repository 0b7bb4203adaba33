package topology

import (
	"os"
	"path/filepath"
	"testing"
)

// examples lists the cluster files among the examples.
func examples(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(all) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	var out []string
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if isClusterFile(data) {
			out = append(out, path)
		}
	}
	return out
}

func isClusterFile(data []byte) bool {
	c, _ := parse("", data)
	return c != nil && c.Kind == KindCluster
}

// loadExample loads a cluster file and its manifests and fails the test on errors.
func loadExample(t *testing.T, path string) (*Cluster, *Objects) {
	t.Helper()
	c, diags, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := diags.Err(); err != nil {
		t.Fatalf("%s:\n%v", path, err)
	}
	objs := &Objects{}
	for _, m := range c.Spec.Manifests {
		data, err := os.ReadFile(ManifestPath(filepath.Dir(path), m))
		if err != nil {
			t.Fatal(err)
		}
		more, _, err := LoadManifests(m, data)
		if err != nil {
			t.Fatalf("%s:\n%v", path, err)
		}
		objs.Merge(more)
	}
	return c, objs
}

// inMode is the cluster in another mode, or why it cannot be.
func inMode(c *Cluster, m ModeName) (*Cluster, error) {
	out := *c
	out.Spec.Network.Mode = m
	return &out, Validate(&out).Err()
}

func TestExamplesAllocateInEveryMode(t *testing.T) {
	for _, path := range examples(t) {
		c, objs := loadExample(t, path)
		for _, m := range ModeNames() {
			moded, err := inMode(c, m)
			if err != nil {
				if m == FlannelHostGW && filepath.Base(path) == "two-racks.yaml" {
					continue
				}
				t.Errorf("%s: %v", path, err)
				continue
			}
			if _, _, err := Allocate(moded, objs, nil); err != nil {
				t.Errorf("%s, %s: %v", path, m, err)
			}
		}
	}
}

func TestSwitchingToAModeThatCannotRunSaysWhy(t *testing.T) {
	c, _ := loadExample(t, "../examples/two-racks.yaml")
	_, err := inMode(c, FlannelHostGW)
	want := "spec.network.mode: flannel-host-gw needs all nodes in one segment, but master01 is in rack1 and node02 in rack2 [not-adjacent]"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
