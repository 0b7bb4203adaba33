// Package filelock locks files between processes (flock(2)). The kernel lets go of a
// lock however its process ends, so that no file of a dead one is in the way.
package filelock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrHeld reports that another process, or another open file of this one, holds the
// lock.
var ErrHeld = errors.New("somebody else holds the lock")

// Try locks a file, or fails with [ErrHeld] at once. It makes the file, for its owner
// alone, where it is missing; in a directory that is missing it fails with
// [os.ErrNotExist]. To close the file is to unlock it.
func Try(path string) (*os.File, error) { return lock(path, unix.LOCK_EX|unix.LOCK_NB) }

// Wait locks a file as Try does, as soon as it is free.
func Wait(path string) (*os.File, error) { return lock(path, unix.LOCK_EX) }

func lock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.EINTR
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(f.Fd()), how)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrHeld
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
