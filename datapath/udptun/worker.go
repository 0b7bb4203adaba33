package udptun

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// worker moves the packets of many tunnels on one thread, which waits for all
// their descriptors at once.
//
// That a thread is shared matters more than what is done with a packet. Where two
// tunnels of one process send to each other, as in a lab, what the thread sends
// for one is in the other's socket when the call returns (a veth delivers in the
// sender's context), so that it goes on without anybody having to be woken. A
// thread for each tunnel or direction takes twice the wake-ups, and as soon as
// several of them wait in system calls the runtime's monitor is busy taking their
// processors away. The runtime's own poller asks for every edge, writability too,
// so that each datagram a receiver takes wakes its sender's process.
//
// A worker once started stays for the life of the process; without traffic it
// waits in one system call.
type worker struct {
	mu    sync.Mutex
	epoll int // valid if lanes is not nil
	lanes map[int32]*lane
}

// lane is one descriptor of a tunnel and what to do with what it has to read.
type lane struct {
	fd     int
	d      direction
	passes int // that it may do before the others have their turn
	parks  *atomic.Uint64
	failed chan<- error // takes one error without waiting; the lane is then off

	mu  sync.Mutex // held while d is at work
	off bool
}

// laneEvents bounds the lanes that one wait returns.
const laneEvents = 64

// crew are the workers of the process: one for every two processors, since the
// ends of the traffic need some too. With two processors, one worker moved 109,000
// packets a second where two moved 75,000.
var crew = sync.OnceValue(func() []*worker {
	workers := make([]*worker, max(1, runtime.NumCPU()/2))
	for i := range workers {
		workers[i] = &worker{}
	}
	return workers
})

var crewTurn atomic.Uint32

// nextWorker deals the tunnels out in turn.
func nextWorker() *worker {
	workers := crew()
	return workers[int(crewTurn.Add(1))%len(workers)]
}

// add lets the worker serve the lanes from now on.
func (w *worker) add(lanes ...*lane) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lanes == nil {
		epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return fmt.Errorf("make epoll descriptor: %w", err)
		}
		w.epoll, w.lanes = epoll, map[int32]*lane{}
		go w.run(epoll)
	}
	for i, l := range lanes {
		w.lanes[int32(l.fd)] = l //nolint:gosec // a descriptor
		e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.fd)}
		if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, l.fd, &e); err != nil {
			w.forget(lanes[:i+1])
			return fmt.Errorf("wait for descriptor: %w", err)
		}
	}
	return nil
}

// remove returns when the lanes are at rest for good.
func (w *worker) remove(lanes ...*lane) {
	w.mu.Lock()
	w.forget(lanes)
	w.mu.Unlock()
	for _, l := range lanes {
		l.mu.Lock()
		l.off = true
		l.mu.Unlock()
	}
}

// forget ends the wait for lanes, those that failed already included.
func (w *worker) forget(lanes []*lane) {
	for _, l := range lanes {
		if w.lanes[int32(l.fd)] == l { //nolint:gosec // a descriptor
			delete(w.lanes, int32(l.fd))
			_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, l.fd, nil) // the descriptor is still open
		}
	}
}

func (w *worker) lane(fd int32) *lane {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lanes[fd]
}

// run serves whichever lane has something to read.
func (w *worker) run(epoll int) {
	var events [laneEvents]unix.EpollEvent
	for {
		n, err := unix.EpollWait(epoll, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			w.fail(fmt.Errorf("wait for packets: %w", err))
			return
		}
		for i := range max(n, 0) {
			l := w.lane(events[i].Fd)
			if l == nil {
				continue // removed meanwhile
			}
			if err := l.work(); err != nil {
				w.remove(l)
				l.failed <- err
			}
		}
	}
}

// fail ends all lanes. The next add begins anew.
func (w *worker) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lanes {
		l.failed <- err
	}
	_ = unix.Close(w.epoll)
	w.lanes = nil
}

// work moves packets until there are none, or others are to have their turn.
func (l *lane) work() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off {
		return nil
	}
	l.d.wake()
	defer l.d.rest()
	for range l.passes {
		drained, err := l.d.pass()
		if err != nil {
			return err
		}
		if drained {
			l.parks.Add(1)
			return nil
		}
	}
	return nil
}
