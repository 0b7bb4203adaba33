package components

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/digest"
	"slipway/internal/filelock"
)

// CacheDirEnv names the directory that holds what was built; without it that is
// slipway/ in the user's cache directory (XDG_CACHE_HOME, ~/.cache).
const CacheDirEnv = "SLIPWAY_CACHE_DIR"

// CacheDir is where builds are kept.
func CacheDir() (string, error) {
	if d := os.Getenv(CacheDirEnv); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory (or set %s): %w", CacheDirEnv, err)
	}
	return filepath.Join(d, "slipway"), nil
}

// Built is a component as it is in the cache.
type Built struct {
	Component string    `json:"component"`
	Version   string    `json:"version"`
	Key       string    `json:"key"`              // SHA-256 of everything it was built from
	Recipe    string    `json:"recipe,omitempty"` // SHA-256 of the module's files alone
	Bundle    bool      `json:"bundle,omitempty"` // loaded, not built here
	Dir       string    `json:"-"`
	Go        string    `json:"go"`
	Arch      string    `json:"arch"`
	BuiltAt   time.Time `json:"builtAt"`
	Took      int64     `json:"tookNs"`
	// Sums are the SHA-256 of the programs, by name.
	Sums map[string]string `json:"sums"`
}

// Path is where a program is, by its name or one of its links.
func (b *Built) Path(program string) string { return filepath.Join(b.Dir, program) }

// manifestName is written last: a directory that has it is whole.
const manifestName = "manifest.json"

// ErrNotBuilt reports that the cache does not hold a component.
var ErrNotBuilt = errors.New("not built")

// key is the SHA-256 of everything a build depends on: the module's files, the
// toolchain, the architecture and the flags.
func (c *Component) key(t toolchain) string {
	h := sha256.New()
	put := func(b []byte) { fmt.Fprintf(h, "%d:%s,", len(b), b) }
	for _, f := range c.files {
		put([]byte(f.Name))
		put(f.Data)
	}
	for _, s := range append(c.flags(), t.goVersion, t.arch, t.cVersion, fmt.Sprint(c.needsC(t.arch))) {
		put([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// keyLength is how much of the key names a directory: enough to tell builds
// apart; the manifest has all of it.
const keyLength = 16

func (c *Component) dir(cache string, t toolchain) string {
	return filepath.Join(cache, "components", c.Name, fmt.Sprintf("%s-%s-%s", c.Version, t.arch, c.key(t)[:keyLength]))
}

// Recipe is the SHA-256 of the module's files: what a build depends on that is
// the same on every machine.
func (c *Component) Recipe() string {
	h := sha256.New()
	for _, f := range c.files {
		fmt.Fprintf(h, "%d:%s,%d:%s,", len(f.Name), f.Name, len(f.Data), f.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Lookup finds a component in the cache: as this machine would build it now, or
// else as a bundle brought it; ErrNotBuilt if it is not there.
func Lookup(ctx context.Context, name string) (*Built, error) { return LookupFor(ctx, name, "") }

// LookupFor is Lookup for another architecture (GOARCH).
func LookupFor(ctx context.Context, name, arch string) (*Built, error) {
	c, err := Find(name)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	if len(c.Debian) > 0 {
		return nil, fmt.Errorf("component %s comes with Debian's packages: %w", c.Name, ErrNotBuilt)
	}
	t, terr := findToolchain(ctx, c, arch)
	if terr == nil {
		b, err := c.lookup(cache, t)
		if err == nil {
			return b, nil
		}
		terr, arch = err, t.arch
	}
	b, err := c.loaded(cache, arch)
	var damaged *SumError
	switch {
	case err == nil:
		return b, nil
	case errors.As(err, &damaged):
		return nil, err
	}
	return nil, terr
}

func (c *Component) lookup(cache string, t toolchain) (*Built, error) {
	b, err := c.read(c.dir(cache, t))
	if err != nil {
		return nil, err
	}
	if b.Key != c.key(t) {
		return nil, fmt.Errorf("component %s: %s is not its manifest: %w", c.Name, b.Path(manifestName), ErrNotBuilt)
	}
	return b, nil
}

// read takes in a directory that has its manifest and all programs.
func (c *Component) read(dir string) (*Built, error) {
	raw, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("component %s: %w", c.Name, ErrNotBuilt)
	}
	if err != nil {
		return nil, fmt.Errorf("component %s: %w", c.Name, err)
	}
	b := &Built{Dir: dir}
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("component %s: %s is not its manifest: %w", c.Name, filepath.Join(dir, manifestName), ErrNotBuilt)
	}
	for _, n := range c.Names() {
		if info, err := os.Stat(b.Path(n)); err != nil || info.Mode()&0o111 == 0 {
			return nil, fmt.Errorf("component %s: %s is missing from the cache: %w", c.Name, n, ErrNotBuilt)
		}
	}
	if err := b.unchanged(); err != nil {
		return nil, err
	}
	return b, nil
}

// seenName has the programs' stamps of when they were last compared with their
// sums.
const seenName = ".seen.json"

// unchanged compares the programs with their sums if one of them was touched
// since that was last done: to do it each time would cost half a second.
func (b *Built) unchanged() error {
	stamps := map[string]string{}
	for program := range b.Sums {
		var st unix.Stat_t
		if err := unix.Stat(b.Path(program), &st); err != nil {
			return fmt.Errorf("component %s: %s: %w", b.Component, b.Path(program), err)
		}
		stamps[program] = fmt.Sprint(st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
	}
	var seen map[string]string
	raw, err := os.ReadFile(b.Path(seenName))
	if err == nil && json.Unmarshal(raw, &seen) == nil && maps.Equal(seen, stamps) {
		return nil
	}
	if err := b.verify(); err != nil {
		return fmt.Errorf("%w: %w", err, ErrNotBuilt)
	}
	if raw, err = json.Marshal(stamps); err == nil {
		_ = writeWhole(b.Path(seenName), raw) // a cache that cannot be written is compared each time
	}
	return nil
}

// SumError says that a program in the cache is not what was built.
type SumError struct{ Path, Want, Have string }

// Error says what to do.
func (e *SumError) Error() string {
	return fmt.Sprintf("%s is not what was built (SHA-256 %.12s…, was %.12s…): build it again", e.Path, e.Have, e.Want)
}

// Verify compares a component's programs in the cache with the checksums of
// when they were built.
func Verify(ctx context.Context, name string) (*Built, error) {
	b, err := Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	return b, b.verify()
}

func (b *Built) verify() error {
	for program, want := range b.Sums {
		have, _, err := digest.File(b.Path(program))
		if err != nil {
			return fmt.Errorf("component %s: %w", b.Component, err)
		}
		if have != want {
			return fmt.Errorf("component %s: %w", b.Component, &SumError{Path: b.Path(program), Want: want, Have: have})
		}
	}
	return nil
}

// writeWhole puts a file in place in one step.
func writeWhole(path string, data []byte) error {
	part := path + ".part"
	if err := os.WriteFile(part, data, 0o644); err != nil {
		return err
	}
	return settle(part, path)
}

// settle renames a finished file, once its content is on the disk.
func settle(part, path string) error {
	f, err := os.Open(part)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// unpack writes the module's files where the go command can work on them.
func (c *Component) unpack(dir string) error {
	for _, f := range c.files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// lockEvery is how often a build looks whether another has ended.
const lockEvery = 200 * time.Millisecond

// lockDir takes the component's lock; the kernel lets go of it when the process
// ends, however it ends. waiting is called once when somebody else has it.
func lockDir(ctx context.Context, dir string, waiting func()) (release func(), err error) {
	for told := false; ; {
		f, err := filelock.Try(filepath.Join(dir, ".lock"))
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, filelock.ErrHeld) {
			return nil, err
		}
		if !told {
			waiting()
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockEvery):
		}
	}
}
