package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"

	"github.com/goccy/go-yaml"
)

// Parse reads one cluster file, fills in the defaults and validates it. The
// cluster is nil if any diagnostic is an error; all are found in one go, in
// the order of their lines. Manifests and programs are not looked for; [Load] does that.
func Parse(filename string, data []byte) (*Cluster, Diagnostics) {
	c, doc := parse(filename, data)
	return finish(c, doc)
}

// Load parses the cluster file at path and checks that its manifests and its own
// programs are there. The error is about reading the file, never about its content.
func Load(path string) (*Cluster, Diagnostics, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read cluster file: %w", err)
	}
	defer f.Close() //nolint:errcheck // read-only
	return load(path, filepath.Dir(path), f)
}

// LoadReader is [Load] for a file that comes from a stream, such as standard
// input; its manifests and programs are looked for from the working directory.
func LoadReader(name string, r io.Reader) (*Cluster, Diagnostics, error) {
	return load(name, "", r)
}

// maxFileSize bounds what is read as a cluster file or a manifest: 64 MiB is a
// hundred times the largest lab that fits on one machine.
const maxFileSize = 64 << 20

func load(name, dir string, r io.Reader) (*Cluster, Diagnostics, error) {
	data, err := readBounded(name, r)
	if err != nil {
		return nil, nil, fmt.Errorf("read cluster file: %w", err)
	}
	c, doc := parse(name, data)
	if c != nil {
		checkManifests(c, doc, dir)
		loadPrograms(c, doc, dir)
	}
	c, diags := finish(c, doc)
	return c, diags, nil
}

func readBounded(name string, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxFileSize)
	}
	return data, nil
}

func finish(c *Cluster, doc *document) (*Cluster, Diagnostics) {
	diags := doc.diags.sorted()
	if diags.Err() != nil {
		return nil, diags
	}
	return c, diags
}

// parse decodes, defaults and validates. The cluster is nil only if there was
// nothing to decode.
func parse(filename string, data []byte) (*Cluster, *document) {
	doc := newDocument(filename, data)
	docs := doc.parseYAML(data)
	switch {
	case len(doc.diags) > 0:
		return nil, doc
	case len(docs) == 0:
		doc.report(SeverityError, position{1, 1}, "", "empty-file", "the file is empty; it needs at least apiVersion, kind and metadata.name")
		return nil, doc
	case len(docs) > 1:
		p := positionOf(docs[1].Body)
		if docs[1].Start != nil {
			p = tokenPosition(docs[1].Start)
		}
		doc.report(SeverityError, p, "", "several-documents", "a cluster file is one YAML document; Kubernetes manifests go into files of their own, listed in spec.manifests")
	}
	c := &Cluster{}
	root := docs[0].Body
	newDecoder(doc, root).value("", root, reflect.ValueOf(c).Elem())
	applyDefaults(c, doc.present)
	validate(c, doc)
	return c, doc
}

// checkManifests reports manifests that cannot be read.
func checkManifests(c *Cluster, doc *document, dir string) {
	for i, m := range c.Spec.Manifests {
		path := indexPath("spec.manifests", i)
		if m == "" || contains(c.Spec.Manifests[:i], m) {
			continue // reported by validate
		}
		info, err := os.Stat(ManifestPath(dir, m))
		switch {
		case err != nil:
			doc.report(SeverityError, doc.locate(path), path, "missing-manifest", "cannot read %q: %s", m, reason(err))
		case info.IsDir():
			doc.report(SeverityError, doc.locate(path), path, "missing-manifest", "%q is a directory; list its files", m)
		}
	}
}

// reason is the bare cause of a file error, whose path the message has already.
func reason(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// ManifestPath resolves a manifest's path from the directory of its cluster
// file.
func ManifestPath(dir, manifest string) string {
	if filepath.IsAbs(manifest) {
		return manifest
	}
	return filepath.Join(dir, manifest)
}

// Marshal writes the cluster as a cluster file, with its defaults spelled out.
// It parses to an equal cluster.
func (c *Cluster) Marshal() ([]byte, error) {
	// By way of JSON: the YAML library takes netip's types for empty structs.
	data, err := json.Marshal(c)
	if err == nil {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return nil, fmt.Errorf("write cluster %s: %w", c.Metadata.Name, err)
	}
	return data, nil
}

// Validate checks a cluster that was changed after it was parsed, such as one
// whose mode was switched. Diagnostics have a path and no position.
func Validate(c *Cluster) Diagnostics {
	doc := &document{places: map[string]position{}}
	validate(c, doc)
	return doc.diags
}
