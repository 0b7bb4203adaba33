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

// load loads a cluster file and its manifests and fails the test on errors.
func loadExample(t *testing.T, path string) (*Cluster, *Objects) {
	t.Helper()
	c, diags, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := diags.Err(); err != nil {
		t.Fatalf("%s:\n%v", path, err)
	}
	objs, _, err := c.LoadManifestFiles(filepath.Dir(path))
	if err != nil {
		t.Fatalf("%s:\n%v", path, err)
	}
	return c, objs
}

func TestExamplesAllocateInEveryMode(t *testing.T) {
	for _, path := range examples(t) {
		c, objs := loadExample(t, path)
		for _, m := range ModeNames() {
			moded, err := c.WithMode(m)
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
