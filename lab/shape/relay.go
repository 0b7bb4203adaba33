package shape

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Relay carries frames between two TAPs, the two ends of one port, and delays
// those on the way to the node. It stands in for a veth pair whose fabric end
// has netem. Frames keep their order, and their size: the virtio header is
// passed on with them, so that GSO packets stay whole.
type Relay struct {
	fabric, node *os.File
	delay        atomic.Int64 // nanoseconds
	queue        *queue
	timer        *timer

	closing  sync.Once
	closed   chan struct{}
	closeErr error
	count    struct{ down, up, full, refused atomic.Uint64 }
}

// RelayStats counts frames since the relay was opened; a GSO packet is one.
type RelayStats struct {
	Down, Up uint64 // to the node, from the node
	Full     uint64 // lost because too much was under way
	Refused  uint64 // not taken by the other TAP: it is down
}

// OpenRelay attaches to two TAPs, the fabric's and the node's end of a port,
// that [CreateTap] made. Frames wait delay on the way from fabric to node.
// Nothing is carried before [Relay.Run].
func OpenRelay(fabric, node Port, delay time.Duration) (*Relay, error) {
	r := &Relay{queue: newQueue(), closed: make(chan struct{})}
	r.SetDelay(delay)
	var err error
	if r.fabric, err = attachTap(fabric); err != nil {
		return nil, err
	}
	if r.node, err = attachTap(node); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if r.timer, err = newTimer(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// SetDelay changes the delay of frames that come from now on. They do not
// overtake those under way.
func (r *Relay) SetDelay(d time.Duration) { r.delay.Store(int64(max(d, 0))) }

// Run carries frames until ctx ends or Close is called, which is no error. It
// fails when one of the TAPs goes away. The relay is closed when it returns.
func (r *Relay) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(r.up)
	g.Go(r.receive)
	g.Go(r.deliver)
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	return errors.Join(g.Wait(), r.Close())
}

// Close ends Run and lets go of the TAPs, which stay and lose their carrier.
func (r *Relay) Close() error {
	r.closing.Do(func() {
		close(r.closed)
		for _, f := range []*os.File{r.fabric, r.node} {
			if f != nil {
				r.closeErr = errors.Join(r.closeErr, f.Close())
			}
		}
		if r.timer != nil {
			r.closeErr = errors.Join(r.closeErr, r.timer.close())
		}
	})
	return r.closeErr
}

// Stats reads the counters.
func (r *Relay) Stats() RelayStats {
	return RelayStats{
		Down:    r.count.down.Load(),
		Up:      r.count.up.Load(),
		Full:    r.count.full.Load(),
		Refused: r.count.refused.Load(),
	}
}

// up carries frames from the node to the fabric at once.
func (r *Relay) up() error {
	buf := make([]byte, maxFrame)
	for {
		n, err := r.node.Read(buf)
		if err != nil {
			return ended("read from node's TAP", err)
		}
		if !r.write(r.fabric, buf[:n], &r.count.up) {
			return nil
		}
	}
}

// receive takes frames for the node in and marks when they are due.
func (r *Relay) receive() error {
	large := largeBuffers.Get().(*[maxFrame]byte)
	for {
		n, err := r.fabric.Read(large[:])
		if err != nil {
			return ended("read from fabric's TAP", err)
		}
		f := frame{due: time.Now().Add(time.Duration(r.delay.Load())), n: n}
		if n <= smallFrame {
			f.small = smallBuffers.Get().(*[smallFrame]byte)
			copy(f.small[:], large[:n])
		} else {
			f.large = large
			large = largeBuffers.Get().(*[maxFrame]byte)
		}
		if !r.queue.put(f) {
			f.release()
			r.count.full.Add(1)
		}
	}
}

// deliver hands frames to the node when they are due.
func (r *Relay) deliver() error {
	for {
		f, ok := r.queue.take()
		if !ok {
			select {
			case <-r.queue.filled:
				continue
			case <-r.closed:
				return nil
			}
		}
		if err := r.timer.sleep(time.Until(f.due)); err != nil {
			return ended("wait", err)
		}
		more := r.write(r.node, f.bytes(), &r.count.down)
		f.release()
		if !more {
			return nil
		}
	}
}

// write hands a frame to a TAP and reports whether to go on. A TAP that is down
// refuses the frame, as a port without a cable would; that is only counted.
func (r *Relay) write(to *os.File, b []byte, counter *atomic.Uint64) bool {
	_, err := to.Write(b)
	if errors.Is(err, os.ErrClosed) {
		return false
	}
	if err != nil {
		counter = &r.count.refused
	}
	counter.Add(1)
	return true
}

// ended tells a closed relay, which is no error, from one whose TAP is gone.
func ended(what string, err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return fmt.Errorf("relay: %s: %w", what, err)
}
