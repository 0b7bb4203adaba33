package lab

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Settled reads a lab's state as [ReadState] does, but not in the middle of a
// change, which in a lab whose pods come and go with an API is any moment: it
// waits a while for the command that is at it. A state that is not complete then
// was left by a command that was cut off. [ErrBusy] comes with the state as it is.
func Settled(ctx context.Context, lab string) (*State, error) {
	give := time.Now().Add(lockPatience)
	for {
		st, rests, err := readAtRest(lab)
		if err != nil || st.Complete || rests {
			return st, err
		}
		if time.Now().After(give) {
			return st, ErrBusy
		}
		select {
		case <-ctx.Done():
			return st, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// SettledSoon reads a lab's state as [Settled] does, but does not wait for an `up`
// that takes long: its state is as it is then.
func SettledSoon(ctx context.Context, lab string) (*State, error) {
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := Settled(soon, lab)
	if st != nil && ctx.Err() == nil {
		return st, nil
	}
	return st, err
}

// readAtRest reads a lab's state, and reports whether no command was changing the lab
// meanwhile. It makes no file: a lab that is not there is changed by nobody.
func readAtRest(lab string) (st *State, rests bool, err error) {
	if err := CheckName(lab); err != nil {
		return nil, false, err
	}
	f, err := os.Open(filesOf(lab).lock())
	if errors.Is(err, os.ErrNotExist) {
		st, err = ReadState(lab)
		return st, true, err
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close() //nolint:errcheck // only read, and its lock with it
	locked := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if locked != nil && !errors.Is(locked, unix.EWOULDBLOCK) {
		return nil, false, locked
	}
	st, err = ReadState(lab) // with the lock, if it was free: nobody begins a change
	return st, locked == nil, err
}
