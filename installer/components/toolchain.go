package components

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// toolchain is what a component is built with, and for which architecture.
type toolchain struct {
	goCommand string
	goVersion string // "go1.26.1"
	arch      string
	cc        string   // the C compiler; empty without cgo
	cVersion  string   // first line of its --version, and that of a library that is linked in
	env       []string // nil: this process's
}

func (t *toolchain) environ() []string {
	if t.env == nil {
		return os.Environ()
	}
	return slices.Clone(t.env)
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

// findToolchain finds what builds c on this machine for an architecture; this
// machine's where that is empty.
func findToolchain(ctx context.Context, c Component, arch string) (toolchain, error) {
	g, err := findGo()
	if err != nil {
		return toolchain{}, &MissingError{"a Go toolchain", c.Name, "install Go from go.dev/dl or the package golang-go, or set " + GoEnv}
	}
	t := toolchain{goCommand: g}
	if arch != "" {
		t.env = append(os.Environ(), "GOARCH="+arch)
	}
	// Asked where the module's go line counts: an older command runs a newer one.
	dir, err := os.MkdirTemp("", "slipway-go")
	if err != nil {
		return t, fmt.Errorf("ask the Go toolchain for its version: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), c.file("go.mod"), 0o600); err != nil {
		return t, fmt.Errorf("ask the Go toolchain for its version: %w", err)
	}
	out, err := run.Cmd{Name: g, Args: []string{"-C", dir, "env", "GOVERSION", "GOARCH", "GOHOSTARCH", "CC"}, Env: t.env}.Output(ctx)
	if err != nil {
		return t, fmt.Errorf("ask the Go toolchain for its version: %w", err)
	}
	fields := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(fields) != 4 {
		return t, fmt.Errorf("ask the Go toolchain for its version: it said %q", out)
	}
	t.goVersion, t.arch = fields[0], fields[1]
	if !c.needsC(t.arch) {
		return t, nil
	}
	return t, t.findC(ctx, c, fields[2], fields[3])
}

// triplets are the names by which Debian's cross compilers and libraries go.
var triplets = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

// findC finds the C compiler, and the library that is linked in.
func (t *toolchain) findC(ctx context.Context, c Component, host, cc string) error {
	missing := &MissingError{"a C compiler (" + cc + ")", c.Name, c.install()}
	if t.arch != host {
		triplet, known := triplets[t.arch]
		if !known {
			return &MissingError{"a C compiler for " + t.arch, c.Name, "build it on such a machine"}
		}
		cc = triplet + "-gcc"
		missing = &MissingError{"a C compiler for " + t.arch + " (" + cc + ")", c.Name,
			fmt.Sprintf("install the package gcc-%s with the libraries of %s, or build it on such a machine", strings.ReplaceAll(triplet, "_", "-"), t.arch)}
		t.env = append(t.environ(), "CC="+cc, "PKG_CONFIG_LIBDIR=/usr/lib/"+triplet+"/pkgconfig")
	}
	t.cc = cc
	said, err := run.Cmd{Name: cc, Args: []string{"--version"}}.Output(ctx)
	if errors.Is(err, exec.ErrNotFound) {
		return missing
	}
	if err != nil {
		return fmt.Errorf("ask the C compiler for its version: %w", err)
	}
	t.cVersion, _, _ = strings.Cut(string(said), "\n")
	if c.PkgConfig == "" {
		return nil
	}
	said, err = run.Cmd{Name: "pkg-config", Args: []string{"--modversion", c.PkgConfig}, Env: t.env}.Output(ctx)
	if err != nil {
		return &MissingError{"the C library " + c.PkgConfig + " for " + t.arch, c.Name, c.install()}
	}
	t.cVersion += ", " + c.PkgConfig + " " + strings.TrimSpace(string(said))
	return nil
}

// install says which packages to install.
func (c *Component) install() string {
	packages := c.Packages
	if len(packages) == 0 {
		packages = []string{"gcc", "libc6-dev"}
	}
	return "install the packages " + strings.Join(packages, ", ")
}
