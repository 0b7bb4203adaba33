package images

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/internal/digest"
)

// UnknownError says that there is no image of a name.
type UnknownError struct{ Name string }

// Error lists those that there are.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("no image %q: there are %s", e.Name, strings.Join(Names(), ", "))
}

// Build makes images from components that are in the cache already, and returns
// the archive of each by all names that the image has. What is in cacheDir (empty:
// that of the components) is not made again, unless it is not what was made.
func Build(ctx context.Context, cacheDir string, names ...string) (map[string]installer.Blob, error) {
	out := map[string]installer.Blob{}
	for _, name := range names {
		find, known := recipes[name]
		if !known {
			return nil, &UnknownError{name}
		}
		r, err := find(ctx)
		// What a bundle brought is used as it came: made again, it would lack what this
		// machine lacks, such as busybox, and be another image than the bundle's.
		if (err != nil || r.bundled) && loaded(cacheDir, name, out) == nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := r.build(cacheDir, name, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// build puts the archive of all of the recipe's images into out.
func (r recipe) build(cacheDir, name string, out map[string]installer.Blob) error {
	b, err := r.archive(cacheDir, name)
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	for _, i := range r.images {
		for _, ref := range i.refs {
			out[ref] = b
		}
	}
	return nil
}

// record is what is kept beside an archive.
type record struct {
	Sum    string   `json:"sum"` // SHA-256
	Size   int64    `json:"size"`
	Refs   []string `json:"refs"`
	Recipe string   `json:"recipe,omitempty"` // of the component in it, if a bundle brought it
}

// dir is where archives are.
func dir(cacheDir string) (string, error) {
	if cacheDir == "" {
		var err error
		if cacheDir, err = components.CacheDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(cacheDir, "images"), nil
}

func (r recipe) archive(cacheDir, name string) (installer.Blob, error) {
	home, err := dir(cacheDir)
	if err != nil {
		return installer.Blob{}, err
	}
	entries, err := resolve(r.entries)
	if err != nil {
		return installer.Blob{}, err
	}
	r.entries = entries
	key, err := r.key()
	if err != nil {
		return installer.Blob{}, err
	}
	path := filepath.Join(home, fmt.Sprintf("%s-%s-%.16s.tar", name, r.arch, key))
	if b, _, ok := kept(path); ok {
		return b, nil
	}
	return r.write(path)
}

// kept finds an archive that is what was made.
func kept(path string) (installer.Blob, record, bool) {
	var rec record
	raw, err := os.ReadFile(path + ".json")
	if err != nil || json.Unmarshal(raw, &rec) != nil {
		return installer.Blob{}, rec, false
	}
	have, size, err := digest.File(path)
	if err != nil || have != rec.Sum || size != rec.Size {
		return installer.Blob{}, rec, false
	}
	return installer.Blob{Sum: rec.Sum, Size: rec.Size, Path: path}, rec, true
}

// write makes the archive under a name of its own and renames it, so that no two
// that make the same see each other's half.
func (r recipe) write(path string) (b installer.Blob, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return b, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*")
	if err != nil {
		return b, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	h := sha256.New()
	n := &counter{w: io.MultiWriter(f, h)}
	err = writeArchive(n, r.arch, r.entries, r.images)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return b, err
	}
	rec := record{Sum: hex.EncodeToString(h.Sum(nil)), Size: n.n}
	for _, i := range r.images {
		rec.Refs = append(rec.Refs, i.refs...)
	}
	if err := rec.settle(f.Name(), path); err != nil {
		return b, err
	}
	return installer.Blob{Sum: rec.Sum, Size: rec.Size, Path: path}, nil
}

// settle puts a finished archive in its place, with its record.
func (rec record) settle(from, path string) error {
	raw, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.Rename(from, path), os.WriteFile(path+".json", raw, 0o644))
}

// format changes when the same recipe is written in another way.
const format = "1"

// key is the SHA-256 of everything that goes into the archive.
func (r recipe) key() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", format, r.arch)
	for _, e := range slices.SortedFunc(slices.Values(r.entries), func(a, b entry) int { return cmp.Compare(a.path, b.path) }) {
		sum := ""
		if e.from != "" {
			var err error
			if sum, _, err = digest.File(e.from); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(h, "%q %s %q %q %o %t\n", e.path, sum, e.data, e.link, e.mode, e.dir)
	}
	for _, i := range r.images {
		fmt.Fprintf(h, "%q %q %q %q %q\n", i.refs, i.entrypoint, i.args, i.env, i.labels)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
