package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every wrong cluster file of the corpus ends `up` with exit code 2 and its
// message, and nothing is begun: no privilege is needed to be told.
func TestErrorCorpus(t *testing.T) {
	dir := "../../testdata/err"
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) < 30 {
		t.Fatalf("corpus of %d files: %v", len(files), err)
	}
	state, _ := unique()
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(f, ".yaml") + ".out")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(binDir, "slipway"), "up", "-f", filepath.Base(f))
			cmd.Dir, cmd.Env = dir, environ(state)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			var exit *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
				t.Errorf("ended with %v, want exit code %d", err, exitUsage)
			}
			if d := cmp.Diff(string(want), errs.String()); d != "" {
				t.Errorf("stderr (-want +got)\n%s", d)
			}
			if out.Len() > 0 {
				t.Errorf("stdout: %s", out.String())
			}
			if _, err := os.Stat(state); err == nil {
				t.Errorf("%s is left", state)
			}
		})
	}
}
