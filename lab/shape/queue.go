package shape

import (
	"sync"
	"time"
)

const (
	// maxFrame is the longest thing that a TAP gives: virtio header, Ethernet
	// header with two tags, and an IP packet of 64 KiB.
	maxFrame = 10 + ethernetHeader + 8 + 1<<16
	// smallFrame holds a full Ethernet frame, so that ordinary packets do not
	// sit in buffers for large ones.
	smallFrame = 2048
	// maxQueued bounds the memory of one relay, in bytes of buffers: 10 Gbit/s
	// for 25 ms, or 1 Gbit/s for a quarter of a second.
	maxQueued = 32 << 20
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallFrame]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([maxFrame]byte) }}
)

// frame is one packet under way.
type frame struct {
	due   time.Time
	n     int
	small *[smallFrame]byte // one of the two is set
	large *[maxFrame]byte
}

func (f *frame) bytes() []byte {
	if f.small != nil {
		return f.small[:f.n]
	}
	return f.large[:f.n]
}

func (f *frame) size() int {
	if f.small != nil {
		return smallFrame
	}
	return maxFrame
}

// release gives the buffer back for other frames.
func (f *frame) release() {
	if f.small != nil {
		smallBuffers.Put(f.small)
	} else {
		largeBuffers.Put(f.large)
	}
	*f = frame{}
}

// queue holds frames in the order in which they came.
type queue struct {
	filled chan struct{} // has a token when frames may be waiting

	mu     sync.Mutex
	frames []frame // a ring
	head   int
	length int
	held   int // bytes of buffers
}

func newQueue() *queue {
	return &queue{filled: make(chan struct{}, 1), frames: make([]frame, 64)}
}

// put appends a frame; false if the queue is full.
func (q *queue) put(f frame) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held+f.size() > maxQueued {
		return false
	}
	if q.length == len(q.frames) {
		grown := make([]frame, 2*len(q.frames))
		n := copy(grown, q.frames[q.head:])
		copy(grown[n:], q.frames[:q.head])
		q.frames, q.head = grown, 0
	}
	q.frames[(q.head+q.length)%len(q.frames)] = f
	q.length++
	q.held += f.size()
	if q.length == 1 {
		select {
		case q.filled <- struct{}{}:
		default:
		}
	}
	return true
}

// take removes the oldest frame; false if there is none.
func (q *queue) take() (frame, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.length == 0 {
		return frame{}, false
	}
	f := q.frames[q.head]
	q.frames[q.head] = frame{}
	q.head = (q.head + 1) % len(q.frames)
	q.length--
	q.held -= f.size()
	return f, true
}
