package udptun

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// direction is one half of a tunnel.
type direction interface {
	// wake and rest take and return the buffers, so that a parked direction has none.
	wake()
	rest()
	// pass moves what it can get without waiting and returns how many reads found
	// something.
	pass() (moved int, err error)
}

// errStopped ends a direction on demand.
var errStopped = errors.New("stopped")

// pump runs d whenever the file behind raw has something to read.
func (t *Tunnel) pump(raw syscall.RawConn, d direction) error {
	var failed error
	err := raw.Read(func(uintptr) bool {
		failed = t.drain(d)
		return failed != nil // false parks until the file is readable again
	})
	if failed != nil {
		return failed
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStopped
	}
	return err
}

// drain moves packets until there are none. It does not linger for more: an active
// wait pays in a thread of its own, but here it keeps the runtime from polling for
// the other goroutines and costs the thread its place when the machine is busy;
// measured, round trips became two to ten times slower.
func (t *Tunnel) drain(d direction) error {
	d.wake()
	defer d.rest()
	for !t.stopping.Load() {
		n, err := d.pass()
		if err != nil {
			return err
		}
		if n == 0 {
			t.parks.Add(1)
			return nil
		}
	}
	return errStopped
}

// read reads without waiting; ok is false if there is nothing.
func read(fd int, b []byte, what string) (n int, ok bool, err error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == nil:
			return n, true, nil
		case errors.Is(err, unix.EAGAIN):
			return 0, false, nil
		case !transient(err):
			return 0, false, fmt.Errorf("read %s: %w", what, err)
		}
	}
}

// transient says whether a read that failed is to be tried again.
func transient(err error) bool {
	return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNREFUSED)
}

// pool hands buffers from tunnel to tunnel.
type pool[T any] struct{ sync.Pool }

func (p *pool[T]) get() *T {
	if v, ok := p.Get().(*T); ok {
		return v
	}
	return new(T)
}
