package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Stopped reports whether the daemon's process is there but was stopped, by a
// signal or a debugger: the kernel still takes connections for it, and nobody
// answers. One that is only slow is not stopped.
func (c *Client) Stopped(ctx context.Context) bool {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return false
	}
	defer conn.Close() //nolint:errcheck // nothing was asked
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	// Who listens (unix(7), SO_PEERCRED).
	if cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", peer.Pid))
	if err != nil {
		return false
	}
	// The state follows the name, which may hold anything (proc_pid_stat(5)).
	state := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	return strings.HasPrefix(state, " T") || strings.HasPrefix(state, " t")
}
