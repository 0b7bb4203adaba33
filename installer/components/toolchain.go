package components

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"slipway/internal/run"
)

// GoEnv names the go command to build with; PATH and the usual places are
// searched where it is not set.
const GoEnv = "SLIPWAY_GO"

// MissingError says that something is not installed which building needs.
type MissingError struct {
	What, For, Hint string
}

// Error says what is missing and what to do.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is needed to build %s and is not installed: %s", e.What, e.For, e.Hint)
}

// toolchain is what a component is built with.
type toolchain struct {
	goCommand string
	goVersion string // "go1.26.1"
	arch      string
	cVersion  string // first line of the C compiler's --version; empty without cgo
}

// usualGo is where the go command is when PATH does not have it: as in
// hack/go-path.sh.
var usualGo = []string{"go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"}

func findGo() (string, error) {
	if set := os.Getenv(GoEnv); set != "" {
		return exec.LookPath(set)
	}
	for _, g := range usualGo {
		if p, err := exec.LookPath(g); err == nil {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// findToolchain finds what builds c on this machine.
func findToolchain(ctx context.Context, c Component) (toolchain, error) {
	g, err := findGo()
	if err != nil {
		return toolchain{}, &MissingError{"a Go toolchain", c.Name, "install Go from go.dev/dl or the package golang-go, or set " + GoEnv}
	}
	t := toolchain{goCommand: g}
	// Asked where the module's go line counts: an older command runs a newer one.
	dir, err := os.MkdirTemp("", "slipway-go")
	if err != nil {
		return t, fmt.Errorf("ask the Go toolchain for its version: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), c.file("go.mod"), 0o600); err != nil {
		return t, fmt.Errorf("ask the Go toolchain for its version: %w", err)
	}
	out, err := run.Cmd{Name: g, Args: []string{"-C", dir, "env", "GOVERSION", "GOARCH", "CC"}}.Output(ctx)
	if err != nil {
		return t, fmt.Errorf("ask the Go toolchain for its version: %w", err)
	}
	fields := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(fields) != 3 {
		return t, fmt.Errorf("ask the Go toolchain for its version: it said %q", out)
	}
	t.goVersion, t.arch = fields[0], fields[1]
	if !c.needsC(t.arch) {
		return t, nil
	}
	said, err := run.Cmd{Name: fields[2], Args: []string{"--version"}}.Output(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		return t, &MissingError{"a C compiler (" + fields[2] + ")", c.Name, "install the packages gcc and libc6-dev"}
	}
	if err != nil {
		return t, fmt.Errorf("ask the C compiler for its version: %w", err)
	}
	t.cVersion, _, _ = strings.Cut(string(said), "\n")
	return t, nil
}
