package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Anonymous makes a namespace without a name. It ends when it is closed and no
// socket or process is left in it; it is for trying out what the kernel can do.
func Anonymous() (*NS, error) {
	fd := -1
	err := onThread(func(home int) (bool, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return true, fmt.Errorf("create unnamed netns: %w", err)
		}
		var err error
		fd, err = openThread()
		if e := unix.Setns(home, unix.CLONE_NEWNET); e != nil {
			return false, errors.Join(err, fmt.Errorf("leave unnamed netns: %w", e))
		}
		return true, err
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return &NS{name: "unnamed", f: os.NewFile(uintptr(fd), "netns")}, nil
}
