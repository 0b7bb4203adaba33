package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inotifyLimit is how many inotify instances all programs of one user have together
// (proc_sys_fs(5)); many a machine has 128.
const inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"

// inotifySpare is what tests leave to programs that claim nothing, a browser say.
const inotifySpare = 8

// roomPatience is longer than other packages' tests keep what they claimed.
const roomPatience = 30 * time.Minute

// Room claims inotify instances until the test ends, for what runs Kubernetes'
// programs, which do not work without. All tests of the machine share what its kernel
// allows: claims that are too many wait for those that came first. A test claims once,
// all that it needs.
func Room(t testing.TB, instances int) {
	t.Helper()
	raw, err := os.ReadFile(inotifyLimit)
	if instances == 0 || errors.Is(err, os.ErrNotExist) {
		return
	}
	limit, err2 := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	claim(t, filepath.Join(os.TempDir(), "slipway-test-room"), instances, limit-inotifySpare)
}

// claim waits for its turn, and then until there is room. What a test claims is in a
// file that it has locked: the kernel lets go of it however the test ends.
func claim(t testing.TB, dir string, n, room int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	turn, err := os.OpenFile(filepath.Join(dir, "turn"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer turn.Close() //nolint:errcheck // and lets the next one wait for room
	Eventually(t, roomPatience, "the turn to wait for room", func() (bool, string) {
		err := unix.Flock(int(turn.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return err == nil, fmt.Sprint(err)
	})
	Eventually(t, roomPatience, "room for a cluster", func() (bool, string) {
		taken, err := claimed(dir)
		if err != nil {
			t.Fatal(err)
		}
		return taken == 0 || taken+n <= room, fmt.Sprintf("%d of %d inotify instances are claimed, %d more wanted", taken, room, n)
	})
	f, err := os.CreateTemp(dir, "claim-*")
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err == nil {
		_, err = fmt.Fprint(f, n)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = os.Remove(f.Name())
		_ = f.Close()
	})
}

// claimed sums up what is claimed, and removes what tests left that were killed. It
// is for who has the turn: nobody else makes claims meanwhile.
func claimed(dir string) (sum int, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "claim-*"))
	if err != nil {
		return 0, err
	}
	for _, path := range files {
		n, err := readClaim(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // else it ended just now
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// readClaim is 0 for one that nobody holds any more.
func readClaim(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read, and its lock with it
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, os.Remove(path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(raw))
}
