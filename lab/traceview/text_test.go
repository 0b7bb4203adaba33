package traceview

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/ordered"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file that was read and argued to be right.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestText(t *testing.T) {
	for _, name := range ordered.Keys(fixtures()) {
		var b bytes.Buffer
		if err := Text(&b, fixtures()[name], TextOptions{}); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".txt", b.Bytes())
	}
	for _, name := range []string{"vxlan-service", "unknown"} {
		var b bytes.Buffer
		if err := Text(&b, fixtures()[name], TextOptions{Verbose: true}); err != nil {
			t.Fatal(err)
		}
		golden(t, name+".verbose.txt", b.Bytes())
	}
}
