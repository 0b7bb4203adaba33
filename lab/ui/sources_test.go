package ui

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sourcesDir is the front end, from here.
const sourcesDir = "../../ui"

// TestDistIsOfTheSources holds the committed assets against ui/: a change there
// needs `make ui`.
func TestDistIsOfTheSources(t *testing.T) {
	files := []string{"index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"}
	err := filepath.WalkDir(filepath.Join(sourcesDir, "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(sourcesDir, path)
		files = append(files, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	all := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(sourcesDir, f))
		if err != nil {
			t.Fatal(err)
		}
		one := sha256.Sum256(b)
		fmt.Fprintf(all, "%s\x00%s\n", f, hex.EncodeToString(one[:]))
	}
	built, err := dist.ReadFile("dist/sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(built)), hex.EncodeToString(all.Sum(nil)); got != want {
		t.Errorf("lab/ui/dist was built from other sources than those in ui/ (%s, now %s): run `make ui`", got[:12], want[:12])
	}
}

// TestEverythingInDistHasAType: a browser that is told not to guess shows
// nothing without one.
func TestEverythingInDistHasAType(t *testing.T) {
	n := 0
	err := fs.WalkDir(dist, "dist", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".sha256") {
			return err
		}
		n++
		if types[filepath.Ext(path)] == "" {
			t.Errorf("%s has no content type in assets.go", path)
		}
		return nil
	})
	if err != nil || n < 4 {
		t.Errorf("%d files in dist, err %v; want the page, its script, its style and the licences", n, err)
	}
}
