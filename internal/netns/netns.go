// Package netns creates, enters and deletes named network namespaces. It is the
// only package that may move a thread between namespaces (a lint rule holds the
// others to that), because a thread that goes back to the runtime's pool in the
// wrong namespace poisons every goroutine that is scheduled on it afterwards.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces are bound, the place `ip netns` uses
// (iproute2 include/namespace.h, NETNS_RUN_DIR).
const Dir = "/run/netns"

// ErrNotExist reports a name that no namespace is bound to.
var ErrNotExist = errors.New("no such network namespace")

// errExited is what Do answers when fn left through runtime.Goexit (t.FailNow),
// which must not look like success.
var errExited = errors.New("function exited its goroutine")

// NS is an open network namespace. It stays alive at least as long as it is open.
type NS struct {
	name string
	f    *os.File // nil: that of the process, which nobody has to enter
}

// Path returns the file that a namespace of that name is bound to.
func Path(name string) string { return filepath.Join(Dir, name) }

// Open opens the namespace bound to name; ErrNotExist if there is none.
func Open(name string) (*NS, error) { return OpenPath(Path(name)) }

// OpenPath opens the namespace that a file refers to, such as /proc/PID/ns/net.
func OpenPath(path string) (*NS, error) {
	name := filepath.Base(path)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open netns %s: %w", name, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open netns %s: %w", name, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		_ = f.Close()
		return nil, fmt.Errorf("open netns %s: %w: the file is not a namespace", name, ErrNotExist)
	}
	return &NS{name: name, f: f}, nil
}

// Current opens the namespace of the calling thread.
func Current() (*NS, error) {
	fd, err := openThread()
	if err != nil {
		return nil, err
	}
	return &NS{name: "current", f: os.NewFile(uintptr(fd), "netns")}, nil
}

// Own stands for the namespace that the process is in: Do stays in it, and so needs
// no privilege, as where a container has none. It has neither descriptor nor inode.
func Own() *NS { return &NS{name: "own"} }

// Name is the name under which the namespace was opened.
func (n *NS) Name() string { return n.name }

// Fd is the descriptor of the namespace, valid until Close.
func (n *NS) Fd() int { return int(n.f.Fd()) }

// Close lets go of the namespace; it does not delete it.
func (n *NS) Close() error {
	if n.f == nil {
		return nil
	}
	return n.f.Close()
}

// Inode identifies the namespace on this machine.
func (n *NS) Inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.Fd(), &st); err != nil {
		return 0, fmt.Errorf("stat netns %s: %w", n.name, err)
	}
	return st.Ino, nil
}

// Do runs fn on a thread inside n and returns its error. Goroutines that fn
// starts are not inside n; sockets and processes that it opens are, and stay.
func (n *NS) Do(fn func() error) error {
	return onThread(func(home int) (bool, error) {
		if n.f == nil {
			return true, fn()
		}
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			return true, fmt.Errorf("enter netns %s: %w", n.name, err)
		}
		ferr := fn()
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			return false, errors.Join(ferr, fmt.Errorf("leave netns %s: %w", n.name, err))
		}
		return true, ferr
	})
}

// onThread runs fn on a thread of its own, giving it the namespace to come home
// to. A thread that fn says is not home is left locked, so that it dies with
// its goroutine instead of going back to the pool.
func onThread(fn func(home int) (isHome bool, err error)) error {
	err, done := errExited, make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, e := openThread()
		if e != nil {
			err = e
			runtime.UnlockOSThread()
			return
		}
		defer unix.Close(home) //nolint:errcheck // read-only descriptor
		isHome, e := fn(home)
		if isHome {
			runtime.UnlockOSThread()
		}
		err = e
	}()
	<-done
	return err
}

// openThread opens the namespace of the calling thread as a bare descriptor: an
// os.File would be offered to the runtime's poller each time, in vain.
func openThread() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open own netns: %w", err)
	}
	return fd, nil
}
