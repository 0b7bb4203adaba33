package udptun

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

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

// spinFor is how long a direction looks for the next packet before it parks: about
// what parking and waking cost, so that at most as much again is wasted.
const spinFor = 20 * time.Microsecond

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

// drain moves packets until none has come for a while. It waits actively only if
// it has moved something, so that a needless wake-up costs one read.
func (t *Tunnel) drain(d direction) error {
	d.wake()
	defer d.rest()
	var idleSince time.Time
	for busy := false; ; {
		if t.stopping.Load() {
			return errStopped
		}
		n, err := d.pass()
		switch {
		case err != nil:
			return err
		case n > 0:
			busy, idleSince = true, time.Time{}
			continue
		case !busy:
			t.parks.Add(1)
			return nil
		case idleSince.IsZero():
			idleSince = time.Now()
		case time.Since(idleSince) > spinFor:
			t.parks.Add(1)
			return nil
		}
		runtime.Gosched()
	}
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
