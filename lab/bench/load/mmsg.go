package load

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many datagrams one system call takes or gives.
const batchSize = 64

// batch is a set of datagrams for sendmmsg(2) and recvmmsg(2): each is a packet
// of its own to the kernel (no UDP_SEGMENT, no UDP_GRO). Nothing is allocated
// after it was made.
type batch struct {
	size  int
	bytes []byte
	hdrs  [batchSize]unix.Mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]unix.RawSockaddrInet4
}

// newBatch makes room for datagrams of a size. A named batch keeps where they
// came from, and sends them back there.
func newBatch(size int, named bool) *batch {
	b := &batch{size: size, bytes: make([]byte, batchSize*size)}
	for i := range b.hdrs {
		b.iovs[i].Base = &b.payload(i)[0]
		b.iovs[i].SetLen(size)
		h := &b.hdrs[i].Hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		if named {
			h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
			h.Namelen = unix.SizeofSockaddrInet4
		}
	}
	return b
}

func (b *batch) payload(i int) []byte { return b.bytes[i*b.size : (i+1)*b.size] }

// received is what came in datagram i.
func (b *batch) received(i int) []byte { return b.payload(i)[:b.hdrs[i].Len] }

// send hands datagrams from to to−1 to the kernel, and says how many it took.
func (b *batch) send(s socket, from, to int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s), uintptr(unsafe.Pointer(&b.hdrs[from])), uintptr(to-from), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// receive waits for a datagram and takes those that are there.
func (b *batch) receive(s socket) (int, error) {
	for i := range b.hdrs {
		b.iovs[i].SetLen(b.size)
		if b.hdrs[i].Hdr.Name != nil {
			b.hdrs[i].Hdr.Namelen = unix.SizeofSockaddrInet4
		}
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s), uintptr(unsafe.Pointer(&b.hdrs[0])), batchSize, unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// answer sends the first n received back, as long as they came.
func (b *batch) answer(s socket, n int) error {
	for i := range n {
		b.iovs[i].SetLen(int(b.hdrs[i].Len))
	}
	for i := 0; i < n; {
		sent, err := b.send(s, i, n)
		if err != nil && !passing(err) {
			return err
		}
		i += max(sent, 1) // what could not be sent is lost, as on any queue
	}
	return nil
}

// passing reports whether one datagram could not be sent and the next may.
func passing(err error) bool { return stuck(err) || err == unix.ENOBUFS } //nolint:errorlint // a bare errno

// stampSize is the least a datagram holds: its number and when it was sent.
const stampSize = 16

// The number of a datagram has its run in the upper bits, so that what is left
// over from another run is not taken for one's own.
const numberBits = 48

// stamp says which datagram of which run this is, and when it was sent, in
// nanoseconds from the run's start.
func stamp(b []byte, run uint16, number int64, sent time.Duration) {
	binary.BigEndian.PutUint64(b, uint64(run)<<numberBits|uint64(number))
	binary.BigEndian.PutUint64(b[8:], uint64(sent))
}

// stamped reads a stamp; ok is false for datagrams of other runs.
func stamped(b []byte, run uint16) (number int64, sent time.Duration, ok bool) {
	if len(b) < stampSize {
		return 0, 0, false
	}
	v := binary.BigEndian.Uint64(b)
	return int64(v & (1<<numberBits - 1)), time.Duration(binary.BigEndian.Uint64(b[8:])), uint16(v>>numberBits) == run
}
