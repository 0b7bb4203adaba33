package topology

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsListEveryCode holds the page, the corpus and each other to
// completeness: every code that is shown is explained, every code that is
// explained is shown.
func TestDocsListEveryCode(t *testing.T) {
	page, err := os.ReadFile("../docs/cluster-file.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "| code | meaning |")
	if !ok {
		t.Fatal("no table of codes")
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(table, -1) {
		explained[m[1]] = true
	}
	shown := map[string]bool{}
	for _, pattern := range []string{"../testdata/err/*.out", "../testdata/err/manifests/*.out"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^\S+:\d+:\d+: .* \[([a-z-]+)\]$`).FindAllStringSubmatch(string(data), -1) {
				shown[m[1]] = true
			}
		}
	}
	for code := range shown {
		if !explained[code] {
			t.Errorf("%s is not explained", code)
		}
	}
	for code := range explained {
		if !shown[code] {
			t.Errorf("%s is in the page, but no file of the corpus shows it", code)
		}
	}
}

// TestDocsListEveryField looks for each field's name in the page.
func TestDocsListEveryField(t *testing.T) {
	page, err := os.ReadFile("../docs/cluster-file.md")
	if err != nil {
		t.Fatal(err)
	}
	for f := range fieldDocs {
		_, name, _ := strings.Cut(f, ".")
		if !regexp.MustCompile("(?m)(^|[`.])" + name + "(\\[\\]|`|\\.|:)").Match(page) {
			t.Errorf("%s is not in the page", f)
		}
	}
}
