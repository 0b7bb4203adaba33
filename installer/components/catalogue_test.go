package components

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write modules.txtar again from components/")

// TestModulesAreThoseOfTheTree: what the program builds from is components/ of
// the source tree, every directory there that has a component.yaml.
func TestModulesAreThoseOfTheTree(t *testing.T) {
	tree := os.DirFS("../../components")
	a := &txtar.Archive{Comment: []byte("The modules of components/, packed by `go test ./installer/components -update`. Do not edit.\n")}
	found, err := fs.Glob(tree, "*/component.yaml")
	if err != nil || len(found) == 0 {
		t.Fatalf("components/*/component.yaml: found %v: %v", found, err)
	}
	for _, f := range found {
		err := fs.WalkDir(tree, f[:len(f)-len("/component.yaml")], func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(tree, path)
			a.Files = append(a.Files, txtar.File{Name: path, Data: data})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := txtar.Format(a)
	if *update {
		if err := os.WriteFile("modules.txtar", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, modules) {
		t.Error("modules.txtar is not what components/ holds: run `go test ./installer/components -update`")
	}
}
