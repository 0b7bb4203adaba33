package initd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Pid is the process id of the node's first process on this machine: below
// /proc/PID/root is the node's file system.
func (c *Client) Pid(ctx context.Context) (int, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return 0, ErrNotRunning
	}
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing was asked
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var perr error
	// Who listens, in the numbers of who asks (unix(7), SO_PEERCRED).
	err = raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, perr); err != nil {
		return 0, fmt.Errorf("ask whose the socket is: %w", err)
	}
	return int(peer.Pid), nil
}
