package components

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/internal/digest"
)

// GivenError says that a program of the user's is not what it was said to be.
type GivenError struct{ Name, Path, Want, Have string }

// Error says what to do.
func (e *GivenError) Error() string {
	return fmt.Sprintf("program %s: %s has the SHA-256 %.12s…, and %.12s… is wanted: it was changed since the cluster file was read (give the file again)", e.Name, e.Path, e.Have, e.Want)
}

// Given keeps a program of the user's in the cache, by its SHA-256, and returns where:
// what a cluster was installed with is there after its file has gone or is another.
func Given(name, path, sum string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "given", sum)
	kept := filepath.Join(dir, name)
	have, _, err := digest.File(kept)
	if err == nil && have == sum {
		return kept, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("program %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("program %s: %w", name, err)
	}
	if err := keep(path, kept); err != nil {
		return "", fmt.Errorf("program %s: %w", name, err)
	}
	if have, _, err = digest.File(kept); err == nil && have != sum {
		err = &GivenError{Name: name, Path: path, Want: sum, Have: have}
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(kept))
	}
	return kept, nil
}

// keep copies a program; what it is called has all of it.
func keep(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read-only
	out, err := os.CreateTemp(filepath.Dir(to), ".part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	return settle(out.Name(), to)
}
