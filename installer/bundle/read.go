package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"slipway/installer/components"
	"slipway/installer/images"
)

// ErrUnsigned reports that a bundle has no signature where one was to be checked.
var ErrUnsigned = errors.New("the bundle is not signed")

// ErrSignature reports that a bundle was signed with another key, or changed.
var ErrSignature = errors.New("the signature is not that of the key given: another's bundle, or a changed one")

// SumError says that a file of a bundle is not what the bundle says.
type SumError struct {
	Name, Want, Have string
	Size, Came       int64
}

// Error says that the bundle is damaged.
func (e *SumError) Error() string {
	if e.Size != e.Came {
		return fmt.Sprintf("the bundle is damaged: %s has %d bytes, not %d", e.Name, e.Came, e.Size)
	}
	return fmt.Sprintf("the bundle is damaged: %s has SHA-256 %.12s…, not %.12s…", e.Name, e.Have, e.Want)
}

// mostManifest bounds bundle.json, in bytes.
const mostManifest = 1 << 20

// reader is a bundle whose manifest has been read and, with a key, believed.
type reader struct {
	*Manifest
	t      *tar.Reader
	header *tar.Header // of the first file; nil at the end
	signed bool
}

// open reads the manifest. With a key its signature has to be there and right.
func open(r io.Reader, key ed25519.PublicKey) (*reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("this is no bundle: %w", err)
	}
	in := &reader{t: tar.NewReader(z)}
	if err := in.next(); err != nil {
		return nil, fmt.Errorf("this is no bundle: %w", err)
	}
	raw, err := in.small(manifestName)
	if err != nil {
		return nil, fmt.Errorf("this is no bundle: %w", err)
	}
	if in.Manifest, err = parse(raw); err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	return in, in.believe(raw, key)
}

// next goes to the next file.
func (r *reader) next() error {
	h, err := r.t.Next()
	if errors.Is(err, io.EOF) {
		r.header = nil
		return nil
	}
	r.header = h
	return err
}

// small reads a small file that has to be the next, and goes on.
func (r *reader) small(name string) ([]byte, error) {
	if r.header == nil || r.header.Name != name || r.header.Size > mostManifest {
		return nil, fmt.Errorf("%s is not where it has to be", name)
	}
	data, err := io.ReadAll(r.t)
	return data, errors.Join(err, r.next())
}

// believe checks the signature.
func (r *reader) believe(raw []byte, key ed25519.PublicKey) error {
	if r.header == nil || r.header.Name != signatureName {
		if key != nil {
			return ErrUnsigned
		}
		return nil
	}
	sig, err := r.small(signatureName)
	if err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	if key != nil && !ed25519.Verify(key, raw, sig) {
		return ErrSignature
	}
	r.signed = true
	return nil
}

// each gives every file to put, in order, and checks its sum when put has read
// it. A file that is missing, or too many, is an error.
func (r *reader) each(ctx context.Context, put func(f file) (io.WriteCloser, error)) error {
	for _, f := range r.files() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.header == nil || r.header.Name != f.name {
			return fmt.Errorf("the bundle is damaged: %s is not where it has to be", f.name)
		}
		w, err := put(f)
		if err != nil {
			return err
		}
		if err := errors.Join(copySum(w, r.t, f), w.Close()); err != nil {
			return err
		}
		if err := r.next(); err != nil {
			return fmt.Errorf("the bundle is damaged after %s: %w", f.name, err)
		}
	}
	if r.header != nil {
		return fmt.Errorf("the bundle is damaged: nothing speaks of %s", r.header.Name)
	}
	return nil
}

// copySum copies a file and compares it with what it has to be.
func copySum(w io.Writer, r io.Reader, f file) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, f.Size+1))
	if err != nil {
		return fmt.Errorf("the bundle is damaged in %s: %w", f.name, err)
	}
	if have := hex.EncodeToString(h.Sum(nil)); have != f.Sum || n != f.Size {
		return &SumError{Name: f.name, Want: f.Sum, Have: have, Size: f.Size, Came: n}
	}
	return nil
}

// discard is a file that goes nowhere.
type discard struct{ io.Writer }

func (discard) Close() error { return nil }

// Verify reads a whole bundle and compares every file with its sum, and with a
// key the signature; signed says whether there is one.
func Verify(ctx context.Context, from io.Reader, key ed25519.PublicKey) (m *Manifest, signed bool, err error) {
	r, err := open(from, key)
	if err != nil {
		return nil, false, err
	}
	err = r.each(ctx, func(file) (io.WriteCloser, error) { return discard{io.Discard}, nil })
	return r.Manifest, r.signed, err
}

// Load takes a bundle into the cache. Nothing is taken in before all of it has
// been read and compared, and nothing of components that this slipway would build
// from other sources.
func Load(ctx context.Context, from io.Reader, key ed25519.PublicKey) (m *Manifest, signed bool, err error) {
	r, err := open(from, key)
	if err != nil {
		return nil, false, err
	}
	for _, c := range r.Components {
		if err := components.Accepts(c.built("")); err != nil {
			return nil, false, err
		}
	}
	dirs := map[string]string{} // where the files of components/NAME and of images/ lie
	defer func() {
		for _, dir := range dirs {
			_ = os.RemoveAll(dir) // empty, or given up
		}
	}()
	err = r.each(ctx, func(f file) (io.WriteCloser, error) {
		group := filepath.Dir(f.name)
		if dirs[group] == "" {
			if dirs[group], err = scratch(group); err != nil {
				return nil, err
			}
		}
		return os.OpenFile(filepath.Join(dirs[group], filepath.Base(f.name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	})
	if err != nil {
		return nil, false, err
	}
	return r.Manifest, r.signed, r.adopt(dirs)
}

// scratch makes the directory in the cache for a group of files.
func scratch(group string) (string, error) {
	if group == "images" {
		return images.AdoptDir()
	}
	return components.AdoptDir(filepath.Base(group))
}

// adopt makes what was read count.
func (r *reader) adopt(dirs map[string]string) error {
	for _, c := range r.Components {
		if _, err := components.Adopt(c.built(dirs["components/"+c.Name])); err != nil {
			return err
		}
	}
	for _, i := range r.Images {
		a := images.Archive{Name: i.Name, Arch: i.Arch, Recipe: i.Recipe, Refs: i.Refs, Sum: i.Sum, Size: i.Size}
		if err := images.Adopt(a, filepath.Join(dirs["images"], i.Name+".tar")); err != nil {
			return err
		}
	}
	return nil
}
