package udptun

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// direction is one half of a tunnel.
type direction interface {
	// wake and rest take and return the buffers, so that a direction at rest has none.
	wake()
	rest()
	// pass moves what it can get without waiting, and says whether there was more
	// room than packets.
	pass() (drained bool, err error)
}

// errStopped ends a direction on demand.
var errStopped = errors.New("stopped")

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
