package topology

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A cluster's own programs are found beside its file; what they were when it was
// read goes with the cluster, also through its file as it is written again.
func TestProgramsOfOnesOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	text := "{apiVersion: slipway/v1alpha1, kind: Cluster, metadata: {name: c}, spec: {components: light, programs: [{name: kubelet, file: abc}]}}"
	for name, content := range map[string]string{"c.yaml": text, "abc": "abc"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, diags, err := Load(path)
	if err != nil || diags.Err() != nil {
		t.Fatal(err, diags)
	}
	// FIPS 180-2, appendix B.1.
	want := []Program{{Name: "kubelet", File: filepath.Join(dir, "abc"), SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}
	if diff := cmp.Diff(want, c.Spec.Programs); diff != "" {
		t.Error(diff)
	}
	again, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "abc"), []byte("abd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, diags := Parse("c.yaml", again); diags.Err() != nil {
		t.Error(diags)
	}
	if err := os.WriteFile(path, again, 0o644); err != nil {
		t.Fatal(err)
	}
	_, diags, err = Load(path)
	if err != nil || len(diags) != 1 || diags[0].Code != "wrong-sum" {
		t.Errorf("the program has changed: %v %v", err, diags)
	}
}
