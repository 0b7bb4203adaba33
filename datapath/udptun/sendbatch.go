package udptun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchMessages = 32
	batchPieces   = 1024 // iovecs, one or two per datagram
	batchHeaders  = 512

	// maxSegments is UDP_MAX_SEGMENTS of older kernels (include/linux/udp.h) and
	// maxDatagram the payload of the longest UDP datagram, which bounds all
	// segments of a message together.
	maxSegments = 64
	maxDatagram = 65535 - 20 - 8
)

// segmentControl is the control message that has the kernel cut a message into
// datagrams of one size (UDP_SEGMENT, linux include/uapi/linux/udp.h).
type segmentControl struct {
	header unix.Cmsghdr
	size   uint16
	_      [6]byte // CMSG_ALIGN
}

// sendBatch gathers datagrams into as few messages as possible: datagrams for one
// peer, of one size but for a shorter last, make one message.
type sendBatch struct {
	messages [batchMessages]unix.Mmsghdr
	shape    [batchMessages]messageShape
	controls [batchMessages]segmentControl
	pieces   [batchPieces]unix.Iovec
	storage  [batchHeaders][maxHeaders]byte
	nMessage int
	nPiece   int
	nHeader  int
	single   [1]unix.Mmsghdr // for messages that the kernel does not segment
}

type messageShape struct {
	peer      *unix.RawSockaddrInet4
	piece     int // first in pieces
	size      int // of each datagram but the last
	total     int
	datagrams int
	closed    bool // a shorter one was added
}

// reserve returns storage for the headers of the next datagram. There must be room.
func (b *sendBatch) reserve() []byte {
	b.nHeader++
	return b.storage[b.nHeader-1][:]
}

// room says whether add can take another datagram.
func (b *sendBatch) room() bool {
	return b.nMessage < batchMessages && b.nPiece+2 <= batchPieces && b.nHeader < batchHeaders
}

// add appends the datagram that head and tail, which may be empty, make. There
// must be room. Both stay referenced until the batch is reset. Unless join, the
// datagram gets a message of its own.
func (b *sendBatch) add(peer *unix.RawSockaddrInet4, head, tail []byte, join bool) {
	n := len(head) + len(tail)
	var m *messageShape
	if b.nMessage > 0 {
		m = &b.shape[b.nMessage-1]
	}
	if m == nil || !join || m.closed || m.peer != peer || n > m.size || m.datagrams == maxSegments || m.total+n > maxDatagram {
		m = &b.shape[b.nMessage]
		*m = messageShape{peer: peer, piece: b.nPiece, size: n}
		b.nMessage++
	}
	m.closed = n < m.size
	m.total += n
	m.datagrams++
	b.piece(head)
	if len(tail) > 0 {
		b.piece(tail)
	}
}

func (b *sendBatch) piece(p []byte) {
	b.pieces[b.nPiece].Base = &p[0]
	b.pieces[b.nPiece].SetLen(len(p))
	b.nPiece++
}

func (b *sendBatch) reset() { b.nMessage, b.nPiece, b.nHeader = 0, 0, 0 }

// seal writes the message headers for the kernel.
func (b *sendBatch) seal() {
	for i := range b.nMessage {
		s := &b.shape[i]
		end := b.nPiece
		if i+1 < b.nMessage {
			end = b.shape[i+1].piece
		}
		h := &b.messages[i].Hdr
		setMessage(h, s.peer, b.pieces[s.piece:end])
		h.Control = nil
		h.SetControllen(0)
		if s.datagrams > 1 {
			c := &b.controls[i]
			c.header.Level, c.header.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
			c.header.SetLen(unix.CmsgLen(2))
			c.size = uint16(s.size)
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(unix.CmsgSpace(2))
		}
	}
}

func setMessage(h *unix.Msghdr, peer *unix.RawSockaddrInet4, pieces []unix.Iovec) {
	h.Name = (*byte)(unsafe.Pointer(peer))
	h.Namelen = unix.SizeofSockaddrInet4
	h.Iov = &pieces[0]
	h.SetIovlen(len(pieces))
}

// sendmmsg sends messages without waiting and returns how many went out.
func sendmmsg(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])),
		uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func recvmmsg(fd int, messages []unix.Mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])),
		uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func writev(fd int, pieces []unix.Iovec) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&pieces[0])), uintptr(len(pieces)))
		if errno != unix.EINTR {
			return errno
		}
	}
}
