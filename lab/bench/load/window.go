package load

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// buffer sets the receive or send buffer (SO_RCVBUFFORCE, SO_SNDBUFFORCE), also
// beyond net.core.rmem_max and wmem_max, where this process may; else
// those bound it. 0 leaves it to the kernel.
func (s socket) buffer(option, bytes int) error {
	if bytes == 0 {
		return nil
	}
	err := unix.SetsockoptInt(int(s), unix.SOL_SOCKET, option, bytes)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(int(s), unix.SOL_SOCKET, unforced[option], bytes)
	}
	if err != nil {
		return fmt.Errorf("set a buffer of %d bytes: %w", bytes, err)
	}
	return nil
}

// unforced are the options that need no CAP_NET_ADMIN (socket(7)).
var unforced = map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF}
