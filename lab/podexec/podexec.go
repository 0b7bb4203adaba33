// Package podexec turns the calling process into a command that runs inside a
// pod or node as a user would expect it: with that place's interfaces, host
// name, /etc/hosts, resolver and /sys. Nothing is written outside of it.
//
// It replaces the process instead of starting another, so that the exit code,
// signals and the terminal are the command's own.
package podexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/internal/netns"
)

// Spec says where and what to run.
type Spec struct {
	NetNS    string // name of the network namespace
	Hostname string
	// Files replace files of the machine, by path, for this process only.
	Files map[string][]byte
	// Scratch is an existing directory that a tmpfs may cover for a moment,
	// while the files are made; nobody else sees it.
	Scratch string
	Env     []string
	Argv    []string
}

// Exit codes of a command that could not be run (POSIX.1-2017, XCU 2.8.2).
const (
	CodeNotExecutable = 126
	CodeNotFound      = 127
)

// NotRunError says that the command itself could not be run.
type NotRunError struct {
	Command string
	Code    int
	Err     error
}

// Error names the command.
func (e *NotRunError) Error() string { return fmt.Sprintf("run %s: %v", e.Command, e.Err) }

// Unwrap returns the cause.
func (e *NotRunError) Unwrap() error { return e.Err }

// Exec becomes the command. It returns only when that fails.
func Exec(s Spec) error {
	path, err := exec.LookPath(s.Argv[0])
	if err != nil {
		code := CodeNotFound
		if errors.Is(err, fs.ErrPermission) {
			code = CodeNotExecutable
		}
		return &NotRunError{Command: s.Argv[0], Code: code, Err: err}
	}
	ns, err := netns.Open(s.NetNS)
	if err != nil {
		return err
	}
	if err := ns.Become(); err != nil {
		return err
	}
	if err := errors.Join(ns.Close(), replaceFiles(s), FreshSys()); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	err = syscall.Exec(path, s.Argv, s.Env)
	return &NotRunError{Command: s.Argv[0], Code: CodeNotExecutable, Err: err}
}

// replaceFiles binds files from a tmpfs over those of the machine, then lets go
// of the tmpfs, which lives on in the binds.
func replaceFiles(s Spec) error {
	if len(s.Files) == 0 {
		return nil
	}
	if err := unix.Mount("tmpfs", s.Scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	// Directories first: an overlay hides what was bound inside its directory.
	if err := coverMissing(s); err != nil {
		return err
	}
	for path, content := range s.Files {
		if err := replaceFile(s.Scratch, path, content); err != nil {
			return fmt.Errorf("replace %s: %w", path, err)
		}
	}
	if err := unix.Unmount(s.Scratch, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount tmpfs: %w", err)
	}
	return nil
}

// coverMissing makes the places of files that the machine does not have: an
// overlay over the directory, for this process alone, with an empty file in it.
func coverMissing(s Spec) error {
	covered := map[string]bool{}
	for path := range s.Files {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		dir := filepath.Dir(path)
		if !covered[dir] {
			if err := coverDir(s.Scratch, dir, len(covered)); err != nil {
				return err
			}
			covered[dir] = true
		}
		// A link that leads nowhere would be followed to where nothing may be written.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace %s: %w", path, err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return fmt.Errorf("replace %s: %w", path, err)
		}
	}
	return nil
}

func coverDir(scratch, dir string, number int) error {
	upper, work := filepath.Join(scratch, fmt.Sprint("upper", number)), filepath.Join(scratch, fmt.Sprint("work", number))
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("overlay %s: %w", dir, err)
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
	if err := unix.Mount("overlay", dir, "overlay", 0, opts); err != nil {
		return fmt.Errorf("overlay %s: %w", dir, err)
	}
	return nil
}

func replaceFile(scratch, path string, content []byte) error {
	tmp := filepath.Join(scratch, strings.ReplaceAll(path, "/", "_"))
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return err
	}
	return unix.Mount(tmp, path, "", unix.MS_BIND, "")
}

// kept are mounts below /sys that a fresh sysfs would hide.
var kept = []string{"/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/tracing", "/sys/kernel/debug"}

// FreshSys mounts a sysfs that belongs to the network namespace: /sys/class/net
// shows the devices of the namespace that sysfs was mounted in.
func FreshSys() error {
	fds := map[string]int{}
	for _, k := range kept {
		if fd, err := unix.OpenTree(unix.AT_FDCWD, k, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE); err == nil {
			fds[k] = fd
		}
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	for k, fd := range fds {
		err := unix.MoveMount(fd, "", unix.AT_FDCWD, k, unix.MOVE_MOUNT_F_EMPTY_PATH)
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep %s: %w", k, err)
		}
	}
	return nil
}
