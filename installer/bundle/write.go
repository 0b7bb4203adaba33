package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"slipway/installer/components"
	"slipway/installer/images"
)

// Options say what goes into a bundle.
type Options struct {
	Components []string
	Images     []string
	Packages   []string           // of Debian, that hosts need besides: their versions here are noted
	Key        ed25519.PrivateKey // signs it; nil: not signed
}

// Write writes a bundle of what is in the cache, which is checked on the way.
func Write(ctx context.Context, w io.Writer, o Options) (*Manifest, error) {
	m := &Manifest{Format: format}
	paths := map[string]string{}
	for _, name := range slices.Sorted(slices.Values(o.Components)) {
		if err := m.addComponent(ctx, name, paths); err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
	}
	for _, name := range slices.Sorted(slices.Values(o.Images)) {
		if err := m.addImage(ctx, name, paths); err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
	}
	if err := m.addDebian(ctx, o.Packages); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if err := m.write(ctx, w, o.Key, paths); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return m, nil
}

func (m *Manifest) addComponent(ctx context.Context, name string, paths map[string]string) error {
	b, err := components.Verify(ctx, name)
	if err != nil {
		return err
	}
	c, err := components.Find(name)
	if err != nil {
		return err
	}
	out := Component{Name: name, Version: b.Version, Arch: b.Arch, Go: b.Go, Key: b.Key, Recipe: c.Recipe()}
	for _, program := range slices.Sorted(maps.Keys(b.Sums)) {
		info, err := os.Stat(b.Path(program))
		if err != nil {
			return err
		}
		out.Programs = append(out.Programs, Program{program, File{b.Sums[program], info.Size()}})
		paths["components/"+name+"/"+program] = b.Path(program)
	}
	m.Components = append(m.Components, out)
	return nil
}

func (m *Manifest) addImage(ctx context.Context, name string, paths map[string]string) error {
	made, err := images.Build(ctx, "", name)
	if err != nil {
		return err
	}
	b, err := components.Lookup(ctx, images.Component(name))
	if err != nil {
		return err
	}
	c, err := components.Find(b.Component)
	if err != nil {
		return err
	}
	i := Image{Name: name, Arch: b.Arch, Refs: slices.Sorted(maps.Keys(made)), Recipe: c.Recipe()}
	for _, blob := range made { // one archive under all names
		i.File = File{blob.Sum, blob.Size}
		paths["images/"+name+".tar"] = blob.Path
	}
	m.Images = append(m.Images, i)
	return nil
}

// addDebian notes the versions of packages: those that components come with or run,
// and others by name.
func (m *Manifest) addDebian(ctx context.Context, names []string) error {
	all, err := components.All()
	if err != nil {
		return err
	}
	for _, c := range append(all, components.Component{Debian: names}) {
		packages, err := c.Installed(ctx)
		if err != nil {
			return err
		}
		m.Debian = append(m.Debian, packages...)
	}
	slices.SortFunc(m.Debian, func(a, b components.Package) int { return strings.Compare(a.Name, b.Name) })
	m.Debian = slices.Compact(m.Debian)
	return nil
}

// write writes the files, each of which has to have the sum that was found.
func (m *Manifest) write(ctx context.Context, w io.Writer, key ed25519.PrivateKey, paths map[string]string) error {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	// Programs lose a tenth more at most levels above, which take three times as long.
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	if err := putBytes(t, manifestName, raw); err != nil {
		return err
	}
	if key != nil {
		if err := putBytes(t, signatureName, ed25519.Sign(key, raw)); err != nil {
			return err
		}
	}
	for _, f := range m.files() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := putFile(t, f, paths[f.name]); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func header(name string, size, mode int64) *tar.Header {
	return &tar.Header{Name: name, Size: size, Mode: mode, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
}

func putBytes(t *tar.Writer, name string, data []byte) error {
	if err := t.WriteHeader(header(name, int64(len(data)), 0o644)); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

func putFile(t *tar.Writer, f file, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	if err := t.WriteHeader(header(f.name, f.Size, 0o755)); err != nil {
		return err
	}
	return copySum(t, in, f)
}
