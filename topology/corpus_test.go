package topology

import (
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
	inputs, err := filepath.Glob("../testdata/err/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	for _, path := range inputs {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c, diags, err := load(filepath.Base(path), filepath.Dir(path), f)
			if err != nil {
				t.Fatal(err)
			}
			if c != nil || diags.Err() == nil {
				t.Fatal("no error")
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".out"
			got := diags.Error() + "\n"
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
