package capture

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// readerPoll bounds how long the end of a context can go unnoticed.
const readerPoll = 200 * time.Millisecond

// UntilReaderGone returns a context that ends with ctx, and also when fd is a
// pipe or a socket whose other end was closed: a write would tell too, but where
// no packet comes nothing is written.
func UntilReaderGone(ctx context.Context, fd int) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for ctx.Err() == nil {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			n, err := unix.Poll(fds, int(readerPoll/time.Millisecond))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel(errReaderGone)
				return
			}
			if n > 0 && fds[0].Revents&unix.POLLNVAL != 0 {
				return // not to be watched
			}
		}
	}()
	return ctx
}

var errReaderGone = errors.New("the reader of the packets is gone")
