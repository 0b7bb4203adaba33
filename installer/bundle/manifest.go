package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"slipway/installer/components"
)

// The names of the first two files.
const (
	manifestName  = "bundle.json"
	signatureName = "bundle.sig"
)

// format is that of bundle.json.
const format = 1

// Manifest is bundle.json.
type Manifest struct {
	Format     int         `json:"format"`
	Components []Component `json:"components"`
	Images     []Image     `json:"images,omitempty"`
	// Debian are the packages with programs that the components come with or run:
	// they are not in the bundle; these are the versions of where it was made.
	Debian []components.Package `json:"debian,omitempty"`
}

// Component is a component as it was built.
type Component struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Arch     string    `json:"arch"`
	Go       string    `json:"go"`
	Key      string    `json:"key"`    // SHA-256 of everything it was built from
	Recipe   string    `json:"recipe"` // SHA-256 of its module's files
	Programs []Program `json:"programs"`
}

// Program is one of a component's programs.
type Program struct {
	Name string `json:"name"`
	File
}

// Image is the archive of an image.
type Image struct {
	Name   string   `json:"name"`
	Arch   string   `json:"arch"`
	Refs   []string `json:"refs"`   // what it is called
	Recipe string   `json:"recipe"` // of the component in it
	File
}

// File is what a bundle has of a file.
type File struct {
	Sum  string `json:"sum"` // SHA-256
	Size int64  `json:"size"`
}

// file is one file of a bundle, in order.
type file struct {
	name string
	File
}

// files lists what follows the manifest.
func (m *Manifest) files() (out []file) {
	for _, c := range m.Components {
		for _, p := range c.Programs {
			out = append(out, file{"components/" + c.Name + "/" + p.Name, p.File})
		}
	}
	for _, i := range m.Images {
		out = append(out, file{"images/" + i.Name + ".tar", i.File})
	}
	return out
}

// parse reads a manifest, strictly: its names become those of files.
func parse(raw []byte) (*Manifest, error) {
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	if m.Format != format {
		return nil, fmt.Errorf("%s: format %d, and this slipway reads format %d", manifestName, m.Format, format)
	}
	var names []string
	for _, f := range m.files() {
		if f.Size < 0 || slices.Contains(names, f.name) || strings.Count(f.name, "/") > 2 || strings.Contains(f.name, "..") {
			return nil, fmt.Errorf("%s: %q is no file that a bundle has", manifestName, f.name)
		}
		names = append(names, f.name)
	}
	return &m, nil
}

// built is what the cache says of such a component, in a directory.
func (c Component) built(dir string) *components.Built {
	b := &components.Built{Component: c.Name, Version: c.Version, Arch: c.Arch, Go: c.Go, Key: c.Key, Recipe: c.Recipe, Dir: dir, Sums: map[string]string{}}
	for _, p := range c.Programs {
		b.Sums[p.Name] = p.Sum
	}
	return b
}
