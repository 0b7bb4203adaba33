package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/internal/digest"
)

// store keeps programs and images by their checksums. Every node of every lab
// has it mounted read-only, so that a program lies on the machine, and in its
// memory, once.
type store struct{ dir string }

// openStore makes the store's directory in the component cache.
func openStore() (store, error) {
	cache, err := components.CacheDir()
	if err != nil {
		return store{}, err
	}
	s := store{filepath.Join(cache, "store")}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return store{}, fmt.Errorf("make the store: %w", err)
	}
	return s, nil
}

// SumError says that a file is not what its checksum says.
type SumError struct{ Path, Want, Got string }

// Error says what to do.
func (e *SumError) Error() string {
	return fmt.Sprintf("%s has the SHA-256 %s and not %s: it is damaged or another file (`slipway components verify` looks at all of them, `slipway components build` repairs)", e.Path, e.Got, e.Want)
}

var sha256Sum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// stamp is by what a file that was read through is known again.
type stamp struct {
	Inode uint64 `json:"inode"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtimeNs"`
	CTime int64  `json:"ctimeNs"`
}

// put makes sure that a blob is in the store: a link to the given file where both
// are on one file system, a copy otherwise. What is there already and is damaged
// is replaced.
func (s store) put(ctx context.Context, b installer.Blob) error {
	if !sha256Sum.MatchString(b.Sum) {
		return fmt.Errorf("store %s: %q is no SHA-256 in hexadecimal", b.Path, b.Sum)
	}
	// Before the lock: nobody has to wait for a file that is there.
	if ok, err := s.has(b.Sum); ok || err != nil {
		return err
	}
	l, err := lock(ctx, filepath.Join(s.dir, "."+b.Sum+".lock"))
	if err != nil {
		return fmt.Errorf("store %s: %w", b.Path, err)
	}
	err = s.putLocked(b)
	_ = os.Remove(filepath.Join(s.dir, "."+b.Sum+".lock"))
	return errors.Join(err, l.release())
}

func (s store) putLocked(b installer.Blob) error {
	if ok, err := s.has(b.Sum); ok || err != nil { // meanwhile
		return err
	}
	part, to := filepath.Join(s.dir, b.Sum+".part"), filepath.Join(s.dir, b.Sum)
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store %s: %w", b.Path, err)
	}
	if err := linkOrCopy(b.Path, part); err != nil {
		return errors.Join(fmt.Errorf("store %s: %w", b.Path, err), os.RemoveAll(part))
	}
	got, _, err := digest.File(part)
	if err == nil && got != b.Sum {
		err = &SumError{Path: b.Path, Want: b.Sum, Got: got}
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("store: %w", err), os.RemoveAll(part))
	}
	return s.remember(b.Sum)
}

// has reports whether the store has a whole file of that sum. One that was read
// through and has not been touched since is not read again.
func (s store) has(sum string) (bool, error) {
	now, err := stampOf(filepath.Join(s.dir, sum))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look into the store: %w", err)
	}
	var was stamp
	b, err := os.ReadFile(s.stampPath(sum))
	if err == nil && json.Unmarshal(b, &was) == nil && was == now {
		return true, nil
	}
	got, _, err := digest.File(filepath.Join(s.dir, sum))
	if err != nil || got != sum {
		return false, err
	}
	return true, s.remember(sum)
}

func (s store) stampPath(sum string) string { return filepath.Join(s.dir, "."+sum+".seen") }

// remember notes that a file has just been read through.
func (s store) remember(sum string) error {
	now, err := stampOf(filepath.Join(s.dir, sum))
	if err != nil {
		return fmt.Errorf("look into the store: %w", err)
	}
	b, err := json.Marshal(now)
	if err == nil {
		err = writeAtomic(s.stampPath(sum), b)
	}
	if err != nil {
		return fmt.Errorf("note what is in the store: %w", err)
	}
	return nil
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return stamp{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return stamp{Inode: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano()}, nil
}

// linkOrCopy makes a second name of a file, or a copy where there cannot be one.
func linkOrCopy(from, to string) error {
	real, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	if os.Link(real, to) == nil {
		return nil
	}
	in, err := os.Open(real)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
