package components

import (
	"cmp"
	_ "embed" // the modules
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"golang.org/x/tools/txtar"
)

// The Go modules of all components: components/ of the source tree, one file
// after another. A file of another module cannot be embedded by itself. `go test
// ./installer/components -update` writes it again.
//
//go:embed modules.txtar
var modules []byte

// Component is an upstream program, or several from one module or package.
type Component struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Set   Set    `json:"set"`
	// Module is the Go module whose version, as its go.mod has it, is the
	// component's; empty where the programs are the project's own or Debian's.
	Module  string   `json:"module,omitempty"`
	Version string   `json:"version,omitempty"` // empty for Debian's, which are as installed
	CGO     []string `json:"cgo,omitempty"`
	Tags    []string `json:"tags,omitempty"`
	// LDFlags come after -s -w; ${version} in them is the version.
	LDFlags []string `json:"ldflags,omitempty"`
	// PkgConfig is a C library that is linked in, as pkg-config calls it.
	PkgConfig string   `json:"pkgconfig,omitempty"`
	Packages  []string `json:"packages,omitempty"` // of Debian, to build it
	Binaries  []Binary `json:"binaries,omitempty"`
	// Debian are the packages that have the programs; it is not built then.
	Debian   []string `json:"debian,omitempty"`
	Programs []string `json:"programs,omitempty"` // of Debian's packages, on PATH

	files []txtar.File // of the module: name below its directory
}

// Set says what a component is for.
type Set string

// The sets of components.
const (
	Core    Set = "core"    // `up --components full` needs it
	Network Set = "network" // other datapaths, load balancers, BGP speakers
	Test    Set = "test"    // tests and comparisons
	Extra   Set = "extra"   // by name alone: it takes long, and few want it
)

// Binary is one program of a component, or a file that its programs read.
type Binary struct {
	Name    string `json:"name"`
	Package string `json:"package,omitempty"`
	// File is what is taken as it is instead: its path in the component's module.
	File string `json:"file,omitempty"`
	// Links are more names that the same program has: it does what it is called.
	Links []string `json:"links,omitempty"`
	Test  bool     `json:"test,omitempty"` // the package's tests, as one program
}

// descriptor is component.yaml.
type descriptor struct {
	About     string   `yaml:"about"`
	Set       Set      `yaml:"set"`     // core without it
	Version   string   `yaml:"version"` // the module whose version it is, or the version: "v1"
	CGO       []string `yaml:"cgo"`     // architectures
	Tags      []string `yaml:"tags"`
	LDFlags   []string `yaml:"ldflags"`
	PkgConfig string   `yaml:"pkgconfig"`
	Packages  []string `yaml:"packages"`
	Debian    []string `yaml:"debian"`
	Programs  []string `yaml:"programs"`
	Binaries  []struct {
		Name    string   `yaml:"name"`
		Package string   `yaml:"package"`
		File    string   `yaml:"file"`
		Links   []string `yaml:"links"`
		Test    bool     `yaml:"test"`
	} `yaml:"binaries"`
}

// UnknownError says that no component has a name.
type UnknownError struct {
	Name  string
	Known []string
}

// Error lists those that there are.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("no component %q: there are %s", e.Name, strings.Join(e.Known, ", "))
}

// All lists the components by name.
func All() ([]Component, error) { return parsed() }

// Names lists those that are built from source: of some sets, or all.
func Names(sets ...Set) ([]string, error) {
	all, err := All()
	var out []string
	for _, c := range all {
		if len(c.Debian) == 0 && (len(sets) == 0 || slices.Contains(sets, c.Set)) {
			out = append(out, c.Name)
		}
	}
	return out, err
}

var parsed = sync.OnceValues(func() ([]Component, error) { return parse(modules) })

// Find finds a component.
func Find(name string) (Component, error) {
	all, err := All()
	if err != nil {
		return Component{}, err
	}
	var known []string
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
		known = append(known, c.Name)
	}
	return Component{}, &UnknownError{Name: name, Known: known}
}

// parse reads an archive of files NAME/FILE.
func parse(archive []byte) ([]Component, error) {
	var out []Component
	for _, f := range txtar.Parse(archive).Files {
		name, rest, ok := strings.Cut(f.Name, "/")
		if !ok || path.Clean(f.Name) != f.Name {
			return nil, fmt.Errorf("components: %s is in no component's directory", f.Name)
		}
		if len(out) == 0 || out[len(out)-1].Name != name {
			out = append(out, Component{Name: name})
		}
		c := &out[len(out)-1]
		c.files = append(c.files, txtar.File{Name: rest, Data: f.Data})
	}
	for i := range out {
		if err := out[i].describe(); err != nil {
			return nil, fmt.Errorf("components/%s: %w", out[i].Name, err)
		}
	}
	return out, nil
}

// describe fills in what component.yaml and go.mod say.
func (c *Component) describe() error {
	var d descriptor
	if err := yaml.UnmarshalWithOptions(c.file("component.yaml"), &d, yaml.Strict()); err != nil {
		return fmt.Errorf("component.yaml: %w", err)
	}
	c.About, c.Set, c.CGO, c.Tags, c.LDFlags = d.About, cmp.Or(d.Set, Core), d.CGO, d.Tags, d.LDFlags
	c.PkgConfig, c.Packages, c.Debian, c.Programs = d.PkgConfig, d.Packages, d.Debian, d.Programs
	if !slices.Contains([]Set{Core, Network, Test, Extra}, c.Set) {
		return fmt.Errorf("component.yaml: set %q is none of %s, %s, %s, %s", c.Set, Core, Network, Test, Extra)
	}
	for _, b := range d.Binaries {
		if b.Name == "" || (b.Package == "") == (b.File == "") || b.File != "" && !filepath.IsLocal(b.File) {
			return errors.New("component.yaml: a binary has a name, and a package or a file in the module")
		}
		c.Binaries = append(c.Binaries, Binary(b))
	}
	switch {
	case len(c.Debian) > 0 && (len(c.Binaries) > 0 || len(c.Programs) == 0):
		return errors.New("component.yaml: what Debian has is not built, and has programs")
	case len(c.Debian) > 0:
		return nil
	case len(c.Binaries) == 0:
		return errors.New("component.yaml: no binaries")
	}
	return c.pinned(d.Version)
}

// ownVersion is the version of what is the project's own, which no module pins.
var ownVersion = regexp.MustCompile(`^v\d+$`)

// pinned finds the version: that of a module which go.mod requires, or itself.
func (c *Component) pinned(version string) error {
	if ownVersion.MatchString(version) {
		if slices.ContainsFunc(c.Binaries, func(b Binary) bool { return b.File != "" }) {
			return fmt.Errorf("component.yaml: a file comes out of the module of the version, and %s is of none", version)
		}
		c.Version = version
		return nil
	}
	required := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(version) + ` (v\S+)`)
	m := required.FindSubmatch(c.file("go.mod"))
	if m == nil {
		return fmt.Errorf("go.mod does not require %q, whose version component.yaml takes", version)
	}
	c.Module, c.Version = version, string(m[1])
	return nil
}

// file is the content of one of the module's files; nil if it has none.
func (c *Component) file(name string) []byte {
	i := slices.IndexFunc(c.files, func(f txtar.File) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return c.files[i].Data
}

// Names are those of all programs and their links.
func (c *Component) Names() []string {
	out := slices.Clone(c.Programs)
	for _, b := range c.Binaries {
		out = append(append(out, b.Name), b.Links...)
	}
	return out
}

// needsC reports whether it is built with a C compiler.
func (c *Component) needsC(arch string) bool { return slices.Contains(c.CGO, arch) }
