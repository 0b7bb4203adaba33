package topology

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/err/*.out")

// TestErrorCorpus loads every file below testdata/err, as `slipway up` would,
// and compares what the user reads with the file beside it.
func TestErrorCorpus(t *testing.T) {
	walkCorpus(t, "../testdata/err/*.yaml", func(t *testing.T, path string, data []byte) string {
		c, diags, err := load(filepath.Base(path), filepath.Dir(path), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if c != nil || diags.Err() == nil {
			t.Fatal("no error")
		}
		return diags.Error()
	})
}

// TestManifestCorpus does the same for Kubernetes manifests.
func TestManifestCorpus(t *testing.T) {
	walkCorpus(t, "../testdata/err/manifests/*", func(t *testing.T, path string, data []byte) string {
		objs, warnings, err := LoadManifests(filepath.Base(path), data)
		out := Diagnostics(warnings).Error()
		if err != nil {
			if objs != nil {
				t.Error("objects in spite of an error")
			}
			out = strings.TrimPrefix(out+"\n"+err.Error(), "\n")
		}
		return out
	})
}

func walkCorpus(t *testing.T, pattern string, render func(t *testing.T, path string, data []byte) string) {
	inputs, err := filepath.Glob(pattern)
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, path := range inputs {
		if filepath.Ext(path) == ".out" {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(path, filepath.Ext(path)) + ".out"
			got := render(t, path, data) + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}
