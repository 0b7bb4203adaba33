package components

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// loadedDir is where programs are kept that were built elsewhere: no toolchain of
// this machine is in its name.
func (c *Component) loadedDir(cache, arch string) string {
	return filepath.Join(cache, "components", c.Name, fmt.Sprintf("%s-%s-bundle", c.Version, arch))
}

// loaded finds what a bundle brought: of this version, and of the same recipe.
func (c *Component) loaded(cache, arch string) (*Built, error) {
	b, err := c.read(c.loadedDir(cache, cmp.Or(arch, runtime.GOARCH)))
	if err != nil {
		return nil, err
	}
	if err := c.accepts(b); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrNotBuilt)
	}
	return b, nil
}

// accepts says whether what was built elsewhere is what would be built here.
func (c *Component) accepts(b *Built) error {
	if b.Component != c.Name || b.Version != c.Version || b.Recipe != c.Recipe() {
		return fmt.Errorf("component %s: the bundle's %s was built from other sources than this slipway's %s: use the slipway that made the bundle, or bundle again",
			c.Name, b.Version, c.Version)
	}
	return nil
}

// Accepts says whether programs that were built elsewhere are those that this
// slipway would build.
func Accepts(b *Built) error {
	c, err := Find(b.Component)
	if err != nil {
		return err
	}
	return c.accepts(b)
}

// AdoptDir makes a directory, in the cache, to put programs into before [Adopt].
func AdoptDir(name string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "components", name)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(home, ".load-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
}

// Adopt takes programs that were built elsewhere into the cache: they lie in
// b.Dir, which [AdoptDir] made and which is not there afterwards. They must have
// the sums that b says, and be of what this slipway would build.
func Adopt(b *Built) (*Built, error) {
	c, err := Find(b.Component)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.accepts(b), b.verify()); err != nil {
		return nil, err
	}
	for _, bin := range c.Binaries {
		if b.Sums[bin.Name] == "" {
			return nil, fmt.Errorf("component %s: the bundle has no %s", c.Name, bin.Name)
		}
		for _, l := range bin.Links {
			if err := relink(bin.Name, b.Path(l)); err != nil {
				return nil, fmt.Errorf("component %s: %w", c.Name, err)
			}
		}
	}
	out := *b
	out.Bundle, out.Dir = true, c.loadedDir(cache, b.Arch)
	raw, err := json.MarshalIndent(&out, "", "  ")
	if err == nil {
		err = writeWhole(b.Path(manifestName), raw)
	}
	if err == nil {
		err = errors.Join(os.RemoveAll(out.Dir), os.Rename(b.Dir, out.Dir))
	}
	if err != nil {
		return nil, fmt.Errorf("component %s: keep what was loaded: %w", c.Name, err)
	}
	return c.read(out.Dir)
}
