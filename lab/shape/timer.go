package shape

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timer sleeps more exactly than time.Sleep, which the runtime's poller rounds
// to milliseconds when nothing else goes on (Go runtime/netpoll_epoll.go): the
// poller is woken by a timerfd instead, within 50 to 100 µs.
type timer struct {
	f   *os.File
	raw syscall.RawConn
}

func newTimer() (*timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create timer: %w", err)
	}
	t := &timer{f: os.NewFile(uintptr(fd), "timerfd")}
	if t.raw, err = t.f.SyscallConn(); err != nil {
		_ = t.f.Close()
		return nil, fmt.Errorf("create timer: %w", err)
	}
	return t, nil
}

// sleep returns after d, or at once with os.ErrClosed when the timer is closed.
func (t *timer) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	var setErr error
	err := t.raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil)
	})
	if err != nil {
		return err
	}
	if setErr != nil {
		return fmt.Errorf("set timer: %w", setErr)
	}
	var expirations [8]byte
	_, err = t.f.Read(expirations[:])
	return err
}

func (t *timer) close() error { return t.f.Close() }
