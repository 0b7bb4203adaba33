package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Become moves the calling goroutine's thread into n for good, with mount and
// UTS namespaces of its own, and never lets the thread go: the only thing to do
// afterwards is to set those up and to replace the process by exec(2), which
// keeps what the calling thread has and ends all others. Mounts made afterwards
// stay in the new namespace, while unmounting outside still reaches in, so that
// it does not keep deleted network namespaces alive.
func (n *NS) Become() error {
	runtime.LockOSThread()
	if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter netns %s: %w", n.name, err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("leave the machine's mount and UTS namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	return nil
}
