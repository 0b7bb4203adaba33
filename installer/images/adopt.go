package images

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/internal/digest"
)

// Component is the component whose programs an image has.
func Component(image string) string {
	if image == "agnhost" {
		return conformance
	}
	return image
}

// Archive is an image's archive that was made elsewhere.
type Archive struct {
	Name, Arch string
	Recipe     string   // of the component in it
	Refs       []string // what the image is called
	Sum        string   // SHA-256
	Size       int64    // bytes
}

// AdoptDir makes a directory, in the cache, to put archives into before [Adopt].
func AdoptDir() (string, error) {
	home, err := dir("")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	return os.MkdirTemp(home, ".load-")
}

// Adopt takes the archive in a file of the cache into it: the image is had from
// there where it cannot be made.
func Adopt(a Archive, path string) error {
	home, err := dir("")
	if err != nil {
		return err
	}
	if _, known := recipes[a.Name]; !known {
		return &UnknownError{a.Name}
	}
	sum, size, err := digest.File(path)
	if err == nil && (sum != a.Sum || size != a.Size) {
		err = errors.New("it is not what it was")
	}
	if err == nil {
		err = record{Sum: a.Sum, Size: a.Size, Refs: a.Refs, Recipe: a.Recipe}.settle(path, adopted(home, a.Name, a.Arch))
	}
	if err != nil {
		return fmt.Errorf("image %s: keep what was loaded: %w", a.Name, err)
	}
	return nil
}

func adopted(home, name, arch string) string {
	return filepath.Join(home, name+"-"+arch+"-bundle.tar")
}

// loaded finds an image that a bundle brought, of the same sources.
func loaded(cacheDir, name string, out map[string]installer.Blob) error {
	home, err := dir(cacheDir)
	if err != nil {
		return err
	}
	c, err := components.Find(Component(name))
	if err != nil {
		return err
	}
	b, rec, ok := kept(adopted(home, name, runtime.GOARCH))
	if !ok || rec.Recipe != c.Recipe() {
		return os.ErrNotExist
	}
	for _, ref := range rec.Refs {
		out[ref] = b
	}
	return nil
}
