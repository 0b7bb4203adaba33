package udptun

import (
	"golang.org/x/sys/unix"
)

const (
	// readRoom is what one read from the TUN may need.
	readRoom = vnetLen + maxIPPacket
	// arenaSize leaves room for some 40 full packets before a super-packet.
	arenaSize = readRoom + 64<<10
)

type encapBuffers struct {
	arena [arenaSize]byte
	batch sendBatch
	icmp  [vnetLen + maxICMP]byte
}

var encapPool pool[encapBuffers]

// batchedEncap reads packets and super-packets into one arena and sends them as
// they lie there, many datagrams per call.
type batchedEncap struct {
	*Tunnel
	b *encapBuffers
	// unsegmented is set when the way out cannot do UDP_SEGMENT at all.
	unsegmented bool
}

func (e *batchedEncap) wake() { e.b = encapPool.get() }
func (e *batchedEncap) rest() { encapPool.Put(e.b); e.b = nil }

func (e *batchedEncap) pass() (drained bool, err error) {
	used := 0
	for used+readRoom <= arenaSize && e.b.batch.room() {
		buf := e.b.arena[used : used+readRoom]
		n, ok, err := read(e.deviceFD, buf, e.cfg.Device)
		e.encap.syscalls.Add(1)
		if err != nil {
			return false, err
		}
		if !ok {
			drained = true
			break
		}
		super, err := e.packet(buf[:n])
		if err != nil {
			return false, err
		}
		if super {
			break // it fills a batch alone
		}
		used += (n + 63) &^ 63
	}
	return drained, e.flush()
}

// packet queues what one read brought.
func (e *batchedEncap) packet(buf []byte) (super bool, err error) {
	if len(buf) < vnetLen {
		e.drop(dropMalformed, 1)
		return false, nil
	}
	v, p := parseVnet(buf), buf[vnetLen:]
	peer := e.route(p, e.b.icmp[:], vnetLen)
	if peer == nil {
		return false, nil
	}
	if v.gso != gsoNone {
		return true, e.super(v, p, peer)
	}
	if !finishChecksum(v, p) {
		e.drop(dropOffload, 1)
		return false, nil
	}
	e.b.batch.add(peer, p, nil, !e.unsegmented)
	return false, nil
}

func (e *batchedEncap) super(v vnetHeader, p []byte, peer *unix.RawSockaddrInet4) error {
	s, ok := newSuperPacket(v, p)
	if !ok {
		e.drop(dropOffload, 1)
		return nil
	}
	b := &e.b.batch
	for s.more() {
		if !b.room() {
			if err := e.flush(); err != nil {
				return err
			}
		}
		h, payload := s.next(b.reserve())
		b.add(peer, h, payload, !e.unsegmented)
	}
	return nil
}

// flush sends the batch, waiting while the socket is full, and empties it.
func (e *batchedEncap) flush() error {
	b := &e.b.batch
	defer b.reset()
	b.seal()
	for at := 0; at < b.nMessage; {
		n, errno := sendmmsg(e.socketFD, b.messages[at:b.nMessage])
		e.encap.syscalls.Add(1)
		switch {
		case errno == 0:
			for ; n > 0; n-- {
				e.encap.moved(b.shape[at].datagrams, b.shape[at].total)
				at++
			}
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			if err := e.waitWritable(); err != nil {
				return err
			}
		case b.shape[at].datagrams > 1 && unsegmentable(errno):
			e.unsegmented = e.unsegmented || errno == unix.EIO
			if err := e.sendSingly(at); err != nil {
				return err
			}
			at++
		default:
			e.drop(dropSend, b.shape[at].datagrams)
			at++
		}
	}
	return nil
}

// unsegmentable says whether the kernel may still take the datagrams of a message
// one by one (linux net/ipv4/udp.c, udp_send_skb): EIO if the way out cannot do
// UDP_SEGMENT; EMSGSIZE, in older kernels EINVAL, if a datagram exceeds the
// path's MTU and has to be fragmented.
func unsegmentable(errno unix.Errno) bool {
	return errno == unix.EIO || errno == unix.EMSGSIZE || errno == unix.EINVAL
}

// sendSingly sends the datagrams of message i one by one.
func (e *batchedEncap) sendSingly(i int) error {
	b, s := &e.b.batch, &e.b.batch.shape[i]
	b.single[0].Hdr = unix.Msghdr{}
	piece := s.piece
	for left := s.total; left > 0; {
		first, n := piece, 0
		for want := min(s.size, left); n < want; piece++ {
			n += int(b.pieces[piece].Len)
		}
		setMessage(&b.single[0].Hdr, s.peer, b.pieces[first:piece])
		if err := e.sendOne(n); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (e *batchedEncap) sendOne(n int) error {
	for {
		_, errno := sendmmsg(e.socketFD, e.b.batch.single[:])
		e.encap.syscalls.Add(1)
		switch errno {
		case 0:
			e.encap.moved(1, n)
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := e.waitWritable(); err != nil {
				return err
			}
		default:
			e.drop(dropSend, 1)
			return nil
		}
	}
}
