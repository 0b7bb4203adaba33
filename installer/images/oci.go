package images

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Media types (image-spec v1.1, media-types.md).
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// nameAnnotation is where containerd's importer looks for an image's whole name
// (its pkg/images.AnnotationImageName); the specification has a place for the tag
// alone.
const nameAnnotation = "io.containerd.image.name"

// image is one image of an archive.
type image struct {
	refs       []string
	entrypoint []string
	args       []string // Cmd
	env        []string
	labels     map[string]string
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type config struct {
	platform
	Config struct {
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Cmd        []string          `json:"Cmd,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Labels     map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// blob is a small blob, held in memory.
type blob struct {
	descriptor
	data []byte
}

func newBlob(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return blob{}, err
	}
	sum := sha256.Sum256(data)
	return blob{descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}, data}, nil
}

// describe makes an image's manifest and configuration, over one layer.
func (i image) describe(arch string, layer descriptor) (man, conf blob, err error) {
	c := config{platform: platform{Architecture: arch, OS: "linux"}}
	c.Config.Entrypoint, c.Config.Cmd, c.Config.Labels = i.entrypoint, i.args, i.labels
	c.Config.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin:/"}, i.env...)
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{layer.Digest} // not compressed: the same digest
	if conf, err = newBlob(typeConfig, c); err != nil {
		return man, conf, err
	}
	man, err = newBlob(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: conf.descriptor, Layers: []descriptor{layer}})
	return man, conf, err
}

// writeArchive writes an OCI layout of images that share one layer.
func writeArchive(w io.Writer, arch string, entries []entry, all []image) error {
	entries = complete(entries)
	h := sha256.New()
	n := &counter{w: h}
	if err := writeLayer(n, entries); err != nil {
		return err
	}
	layer := descriptor{MediaType: typeLayer, Digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), Size: n.n}
	idx := index{SchemaVersion: 2, MediaType: typeIndex}
	var blobs []blob
	for _, i := range all {
		man, conf, err := i.describe(arch, layer)
		if err != nil {
			return err
		}
		blobs = append(blobs, conf, man)
		for _, ref := range i.refs {
			d := man.descriptor
			d.Platform = &platform{Architecture: arch, OS: "linux"}
			d.Annotations = map[string]string{nameAnnotation: ref}
			idx.Manifests = append(idx.Manifests, d)
		}
	}
	top, err := newBlob(typeIndex, idx)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	if err := putBlobs(t, top, blobs); err != nil {
		return err
	}
	if err := t.WriteHeader(fileHeader(blobPath(layer.Digest), layer.Size)); err != nil {
		return err
	}
	if err := writeLayer(t, entries); err != nil {
		return err
	}
	return t.Close()
}

// putBlobs writes the small files of a layout (image-spec, image-layout.md).
func putBlobs(t *tar.Writer, top blob, blobs []blob) error {
	files := []struct {
		name string
		data []byte
	}{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", top.data}}
	seen := map[string]bool{}
	for _, b := range blobs {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			files = append(files, struct {
				name string
				data []byte
			}{blobPath(b.Digest), b.data})
		}
	}
	for _, f := range files {
		if err := t.WriteHeader(fileHeader(f.name, int64(len(f.data)))); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
	}
	return nil
}

func fileHeader(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
}

func blobPath(digest string) string { return "blobs/sha256/" + digest[len("sha256:"):] }

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
