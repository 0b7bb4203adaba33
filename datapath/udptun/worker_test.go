package udptun

import (
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// fromPipe is a direction that takes one byte a pass from a pipe that stands for
// a device.
type fromPipe struct {
	fd     int
	taken  atomic.Int64
	broken error // what a pass says that finds a byte
}

func (p *fromPipe) wake() {}
func (p *fromPipe) rest() {}

func (p *fromPipe) pass() (drained bool, err error) {
	var b [1]byte
	_, ok, err := read(p.fd, b[:], "pipe")
	if err != nil || !ok {
		return true, err
	}
	p.taken.Add(1)
	return false, p.broken
}

const testPasses = 16

// newPipe returns a lane with what writes to it.
func newPipe(t *testing.T, broken error) (l *lane, p *fromPipe, failed chan error, write func(n int)) {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(ends[0]), unix.Close(ends[1]) })
	p, failed = &fromPipe{fd: ends[0], broken: broken}, make(chan error, 1)
	return &lane{fd: ends[0], d: p, passes: testPasses, parks: new(atomic.Uint64), failed: failed}, p, failed, func(n int) {
		if _, err := unix.Write(ends[1], make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWorkerServesAllLanes(t *testing.T) {
	w := &worker{}
	a, fromA, _, writeA := newPipe(t, nil)
	b, fromB, _, writeB := newPipe(t, nil)
	writeA(3 * testPasses) // before it is looked at, and for several turns
	if err := w.add(a, b); err != nil {
		t.Fatal(err)
	}
	writeB(1)
	waitFor(t, "both lanes to be empty", func() bool { return fromA.taken.Load() == 3*testPasses && fromB.taken.Load() == 1 })
	w.remove(a)
	writeA(1)
	writeB(1)
	waitFor(t, "the lane that is left", func() bool { return fromB.taken.Load() == 2 })
	if n := fromA.taken.Load(); n != 3*testPasses {
		t.Errorf("%d bytes taken from a lane after it was removed", n-3*testPasses)
	}
	w.remove(b)
}

func TestWorkerDropsALaneThatFails(t *testing.T) {
	w := &worker{}
	broken := errors.New("broken")
	bad, fromBad, failed, writeBad := newPipe(t, broken)
	good, fromGood, _, writeGood := newPipe(t, nil)
	if err := w.add(bad, good); err != nil {
		t.Fatal(err)
	}
	writeBad(2)
	if err := <-failed; !errors.Is(err, broken) {
		t.Errorf("the lane failed with %v", err)
	}
	writeGood(1)
	waitFor(t, "the other lane", func() bool { return fromGood.taken.Load() == 1 })
	if n := fromBad.taken.Load(); n != 1 {
		t.Errorf("%d bytes taken from a lane that fails with the first", n)
	}
	w.remove(bad, good)
	if err := w.add(good, good); err == nil {
		t.Error("one descriptor was added twice")
	}
	if len(w.lanes) != 0 {
		t.Errorf("%d lanes left after an add that failed", len(w.lanes))
	}
}
