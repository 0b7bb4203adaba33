package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"slipway/internal/netns"
)

// hostRecord says what labs together had to make on the machine before the
// first named namespace: the shared mount, and perhaps its directory. It is
// written before the mutation, and undone by the last lab that goes down.
type hostRecord struct {
	Mount bool `json:"mount"`
	Dir   bool `json:"dir"`
}

func hostRecordPath() string { return filepath.Join(StateDir(), ".netns-dir") }

func hostLockPath() string { return filepath.Join(StateDir(), ".lock") }

// prepareNetNSDir makes the directory of names ready, recording what that takes.
func prepareNetNSDir(ctx context.Context) (err error) {
	l, err := lock(ctx, hostLockPath())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.release()) }()
	mounted, err := netns.Mounted()
	if err != nil {
		return err
	}
	if mounted {
		return nil
	}
	_, statErr := os.Stat(netns.Dir)
	rec := hostRecord{Mount: true, Dir: errors.Is(statErr, os.ErrNotExist)}
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := writeAtomic(hostRecordPath(), b); err != nil {
		return fmt.Errorf("record %s: %w", netns.Dir, err)
	}
	return netns.EnsureDir()
}

// Sweep removes what labs share on the machine if no lab is left. The last
// `down` does so itself, unless it was cut off just before its end.
func Sweep(ctx context.Context) error {
	if _, err := os.Stat(StateDir()); errors.Is(err, os.ErrNotExist) || os.Geteuid() != 0 {
		return nil
	}
	return releaseNetNSDir(ctx)
}

// releaseNetNSDir undoes prepareNetNSDir when no lab is left, and removes the
// state directory.
func releaseNetNSDir(ctx context.Context) (err error) {
	names, err := Names()
	if err != nil || len(names) > 0 {
		return err
	}
	lockPath := hostLockPath()
	l, err := lock(ctx, lockPath)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, l.release())
		_ = os.Remove(StateDir()) // stays when another lab has come meanwhile
	}()
	// Again, now that nobody can begin: a lab has its directory before it asks
	// for the directory of names.
	if names, err = Names(); err != nil || len(names) > 0 {
		return err
	}
	torn, err := filepath.Glob(filepath.Join(StateDir(), "."+filepath.Base(hostRecordPath())+"-*"))
	if err != nil {
		return err
	}
	for _, t := range torn { // records that a crash kept from getting their name
		_ = os.Remove(t)
	}
	if err := releaseRecorded(); err != nil {
		return err
	}
	return os.Remove(lockPath)
}

func releaseRecorded() error {
	b, err := os.ReadFile(hostRecordPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read record of %s: %w", netns.Dir, err)
	}
	var rec hostRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return fmt.Errorf("read record of %s: %w", netns.Dir, err)
	}
	if rec.Mount {
		if err := netns.ReleaseDir(rec.Dir); err != nil {
			return err
		}
	}
	return os.Remove(hostRecordPath())
}
