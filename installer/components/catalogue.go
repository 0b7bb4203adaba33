package components

import (
	_ "embed" // the modules
	"errors"
	"fmt"
	"path"
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

// Component is an upstream program, or several from one module.
type Component struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Module  string   `json:"module"`  // the Go module whose version is the component's
	Version string   `json:"version"` // as its go.mod has it
	CGO     []string `json:"cgo,omitempty"`
	Tags    []string `json:"tags,omitempty"`
	// LDFlags come after -s -w; ${version} in them is the version.
	LDFlags  []string `json:"ldflags,omitempty"`
	Binaries []Binary `json:"binaries"`

	files []txtar.File // of the module: name below its directory
}

// Binary is one program of a component.
type Binary struct {
	Name    string `json:"name"`
	Package string `json:"package"`
	// Links are more names that the same program has: it does what it is called.
	Links []string `json:"links,omitempty"`
}

// descriptor is component.yaml.
type descriptor struct {
	About    string   `yaml:"about"`
	Version  string   `yaml:"version"` // the module whose version it is
	CGO      []string `yaml:"cgo"`     // architectures
	Tags     []string `yaml:"tags"`
	LDFlags  []string `yaml:"ldflags"`
	Binaries []struct {
		Name    string   `yaml:"name"`
		Package string   `yaml:"package"`
		Links   []string `yaml:"links"`
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
	c.About, c.Module, c.CGO, c.Tags, c.LDFlags = d.About, d.Version, d.CGO, d.Tags, d.LDFlags
	for _, b := range d.Binaries {
		if b.Name == "" || b.Package == "" {
			return errors.New("component.yaml: a binary has a name and a package")
		}
		c.Binaries = append(c.Binaries, Binary(b))
	}
	if len(c.Binaries) == 0 {
		return errors.New("component.yaml: no binaries")
	}
	required := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(d.Version) + ` (v\S+)`)
	m := required.FindSubmatch(c.file("go.mod"))
	if m == nil {
		return fmt.Errorf("go.mod does not require %q, whose version component.yaml takes", d.Version)
	}
	c.Version = string(m[1])
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
	var out []string
	for _, b := range c.Binaries {
		out = append(append(out, b.Name), b.Links...)
	}
	return out
}

// needsC reports whether it is built with a C compiler.
func (c *Component) needsC(arch string) bool { return slices.Contains(c.CGO, arch) }
