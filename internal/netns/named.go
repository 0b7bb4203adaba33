package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrExist reports that a namespace of that name is already there.
var ErrExist = errors.New("network namespace exists")

// Create makes a new, empty namespace and binds it to name, as `ip netns add`
// does. [EnsureDir] must have run. It fails with ErrExist rather than taking
// over a namespace (or a stray file) that is already there.
func Create(name string) (*NS, error) {
	path := Path(name)
	mark, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create netns %s: %w", name, ErrExist)
	}
	if err != nil {
		return nil, fmt.Errorf("create netns %s: %w", name, err)
	}
	_ = mark.Close()
	err = onThread(func(home int) (bool, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return true, fmt.Errorf("create netns %s: unshare: %w", name, err)
		}
		err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
		if err != nil {
			err = fmt.Errorf("create netns %s: bind: %w", name, err)
		}
		if e := unix.Setns(home, unix.CLONE_NEWNET); e != nil {
			return false, errors.Join(err, fmt.Errorf("leave netns %s: %w", name, e))
		}
		return true, err
	})
	if err != nil {
		_ = os.Remove(path)
		return nil, err
	}
	return Open(name)
}

// Pin binds a namespace that is there already, given by any path that leads to
// it, to a name. It fails with ErrExist like [Create].
func Pin(path, name string) error {
	to := Path(name)
	file, err := os.OpenFile(to, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("pin netns %s: %w", name, ErrExist)
	}
	if err != nil {
		return fmt.Errorf("pin netns %s: %w", name, err)
	}
	_ = file.Close()
	var fs unix.Statfs_t
	err = unix.Statfs(path, &fs)
	if err == nil && fs.Type != unix.NSFS_MAGIC {
		err = errors.New("not a namespace")
	}
	if err == nil {
		err = unix.Mount(path, to, "none", unix.MS_BIND, "")
	}
	if err != nil {
		_ = os.Remove(to)
		return fmt.Errorf("pin netns %s to %s: %w", path, name, err)
	}
	return nil
}

// Delete unbinds name and removes its file. The namespace itself ends when
// nothing holds it any more, which the kernel does later and in its own time.
// Deleting a name that is not there is no error.
func Delete(name string) error {
	path := Path(name)
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not, or no longer, a mount point
		}
		if err != nil {
			return fmt.Errorf("delete netns %s: unmount: %w", name, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete netns %s: %w", name, err)
	}
	return nil
}

// Names lists the names in Dir that begin with prefix, bound or stray.
func Names(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// EnsureDir makes Dir a shared mount point, as iproute2 does before it binds
// the first name (ip/ipnetns.c, netns_add), so that names bound before and
// after someone else's `ip netns add` live in the same mount. An empty Dir gets
// a tmpfs: where /run is on a disk, making thousands of files there takes longer
// than making the namespaces. One with files in it is bound on itself.
func EnsureDir() error {
	if err := os.Mkdir(Dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make %s: %w", Dir, err)
	}
	err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) { // EINVAL: not a mount point yet
		return fmt.Errorf("share %s: %w", Dir, err)
	}
	names, err := Names("")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		err = unix.Mount("tmpfs", Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755")
	} else {
		err = unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("make %s a mount: %w", Dir, err)
	}
	if err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share %s: %w", Dir, err)
	}
	return nil
}

// Mounted reports whether Dir is a mount point of its own (statx(2),
// STATX_ATTR_MOUNT_ROOT, Linux 5.8). The list of mounts does not tell: another
// mount may hide the one that it has.
func Mounted() (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, Dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", Dir, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// ReleaseDir undoes EnsureDir when Dir is empty; with names in it, it does
// nothing. remove says that the directory itself was made too.
func ReleaseDir(remove bool) error {
	names, err := Names("")
	if err != nil || len(names) > 0 {
		return err
	}
	err = unix.Unmount(Dir, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil // somebody stands in it
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", Dir, err)
	}
	if !remove {
		return nil
	}
	if err := os.Remove(Dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", Dir, err)
	}
	return nil
}
