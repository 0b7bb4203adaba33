package load

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// buffer sets the receive or send buffer (SO_RCVBUFFORCE, SO_SNDBUFFORCE), also
// beyond net.core.rmem_max and wmem_max. 0 leaves it to the kernel.
func (s socket) buffer(option, bytes int) error {
	if bytes == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(int(s), unix.SOL_SOCKET, option, bytes); err != nil {
		return fmt.Errorf("set a buffer of %d bytes: %w", bytes, err)
	}
	return nil
}
