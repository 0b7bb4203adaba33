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

// prepareNetNSDir makes the directory of names ready, recording what that takes.
func prepareNetNSDir(ctx context.Context) (err error) {
	l, err := lock(ctx, filepath.Join(StateDir(), ".lock"))
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

// releaseNetNSDir undoes prepareNetNSDir when no lab is left, and removes the
// state directory.
func releaseNetNSDir(ctx context.Context) error {
	names, err := Names()
	if err != nil || len(names) > 0 {
		return err
	}
	lockPath := filepath.Join(StateDir(), ".lock")
	l, err := lock(ctx, lockPath)
	if err != nil {
		return err
	}
	if err := releaseRecorded(); err != nil {
		return errors.Join(err, l.release())
	}
	_ = os.Remove(lockPath)
	err = l.release()
	_ = os.Remove(StateDir()) // stays when another lab has come meanwhile
	return err
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
