package program

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/installer/components"
	"slipway/internal/digest"
)

// AnotherBuild writes a program that does what a component's does and is another
// file, and returns its SHA-256.
func AnotherBuild(t testing.TB, component, name, path string) (sum string) {
	t.Helper()
	built, err := components.Lookup(t.Context(), component)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(built.Path(name))
	if err == nil {
		err = os.WriteFile(path, append(raw, "another build"...), 0o755)
	}
	if err == nil {
		sum, _, err = digest.File(path)
	}
	if err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	return sum
}
