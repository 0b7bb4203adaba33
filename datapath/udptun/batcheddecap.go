package udptun

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveMessages bounds the messages per call; each may be a run of coalesced
// datagrams.
const receiveMessages = 8

// groControl is room for the control message that tells the size of coalesced
// datagrams (UDP_GRO, linux include/uapi/linux/udp.h).
type groControl struct {
	header unix.Cmsghdr
	size   int32
	_      [4]byte // CMSG_ALIGN
}

type decapBuffers struct {
	messages [receiveMessages]unix.Mmsghdr
	controls [receiveMessages]groControl
	into     [receiveMessages]unix.Iovec
	data     [receiveMessages][maxIPPacket]byte
	vnet     [vnetLen]byte
	pieces   [1 + maxRun]unix.Iovec
	run      packetRun
}

var decapPool pool[decapBuffers]

// batchedDecap takes datagrams many at a time and gives the TUN runs of segments as
// super-packets.
type batchedDecap struct {
	*Tunnel
	b *decapBuffers
}

func (d *batchedDecap) wake() {
	d.b = decapPool.get()
	for i := range d.b.messages {
		d.b.into[i].Base = &d.b.data[i][0]
		d.b.into[i].SetLen(maxIPPacket)
		h := &d.b.messages[i].Hdr
		h.Iov = &d.b.into[i]
		h.SetIovlen(1)
		h.Control = (*byte)(unsafe.Pointer(&d.b.controls[i]))
	}
}

func (d *batchedDecap) rest() { decapPool.Put(d.b); d.b = nil }

func (d *batchedDecap) pass() (drained bool, err error) {
	for i := range d.b.messages {
		d.b.messages[i].Hdr.SetControllen(int(unsafe.Sizeof(groControl{})))
	}
	n, errno := recvmmsg(d.socketFD, d.b.messages[:])
	d.decap.syscalls.Add(1)
	switch {
	case errno == unix.EAGAIN:
		return true, nil
	case errno != 0 && transient(errno):
		return false, nil // there may be something to read still
	case errno != 0:
		return false, fmt.Errorf("read UDP socket: %w", errno)
	}
	for i := range n {
		data := d.b.data[i][:d.b.messages[i].Len]
		size := d.segmentSize(i, len(data))
		if len(data) == 0 {
			d.drop(dropMalformed, 1)
		}
		for len(data) > 0 {
			p := data[:min(size, len(data))]
			d.packet(p)
			data = data[len(p):]
		}
	}
	d.flush()
	return n < receiveMessages, nil
}

// segmentSize is the size of the datagrams in message i, of n bytes in all.
func (d *batchedDecap) segmentSize(i, n int) int {
	c := &d.b.controls[i]
	if d.b.messages[i].Hdr.Controllen >= uint64(unix.CmsgLen(4)) &&
		c.header.Level == unix.IPPROTO_UDP && c.header.Type == unix.UDP_GRO && c.size > 0 {
		return int(c.size)
	}
	return n
}

func (d *batchedDecap) packet(p []byte) {
	if r := admit(p); r != dropNone {
		d.drop(r, 1)
		return
	}
	if r := &d.b.run; len(r.parts) == 0 || !r.add(p, d.uso) {
		d.flush()
		r.start(p, d.uso)
	}
}

// flush writes the run to the TUN.
func (d *batchedDecap) flush() {
	r := &d.b.run
	if len(r.parts) == 0 {
		return
	}
	r.finish().put(d.b.vnet[:])
	pieces := d.b.pieces[:1+len(r.parts)]
	pieces[0].Base = &d.b.vnet[0]
	pieces[0].SetLen(vnetLen)
	for i, part := range r.parts {
		pieces[1+i].Base = &part[0]
		pieces[1+i].SetLen(len(part))
	}
	errno := writev(d.deviceFD, pieces)
	d.decap.syscalls.Add(1)
	if errno == 0 {
		d.decap.moved(len(r.parts), r.bytes)
	} else {
		d.drop(dropDeviceWrite, len(r.parts))
	}
	r.parts = r.parts[:0]
}
