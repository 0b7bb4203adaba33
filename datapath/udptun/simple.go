package udptun

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// simpleBuffers hold one packet, and an ICMP answer to one.
type simpleBuffers struct {
	packet [maxIPPacket]byte
	icmp   [vnetLen + maxICMP]byte
}

var simplePool pool[simpleBuffers]

// simpleEncap sends what the TUN has, one packet per read and send.
type simpleEncap struct {
	*Tunnel
	b *simpleBuffers
}

func (s *simpleEncap) wake() { s.b = simplePool.get() }
func (s *simpleEncap) rest() { simplePool.Put(s.b); s.b = nil }

func (s *simpleEncap) pass() (drained bool, err error) {
	n, ok, err := read(s.deviceFD, s.b.packet[:], s.cfg.Device)
	s.encap.syscalls.Add(1)
	if !ok {
		return err == nil, err
	}
	p := s.b.packet[:n]
	peer := s.route(p, s.b.icmp[:], 0)
	if peer == nil {
		return false, nil
	}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(s.socketFD), uintptr(unsafe.Pointer(&p[0])), uintptr(n),
			0, uintptr(unsafe.Pointer(peer)), unix.SizeofSockaddrInet4)
		s.encap.syscalls.Add(1)
		switch errno {
		case 0:
			s.encap.moved(1, n)
			return false, nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := s.waitWritable(); err != nil {
				return false, err
			}
		default:
			s.drop(dropSend, 1)
			return false, nil
		}
	}
}

// simpleDecap writes to the TUN what the socket has, one packet per read and write.
type simpleDecap struct {
	*Tunnel
	b *simpleBuffers
}

func (s *simpleDecap) wake() { s.b = simplePool.get() }
func (s *simpleDecap) rest() { simplePool.Put(s.b); s.b = nil }

func (s *simpleDecap) pass() (drained bool, err error) {
	n, ok, err := read(s.socketFD, s.b.packet[:], "UDP socket")
	s.decap.syscalls.Add(1)
	if !ok {
		return err == nil, err
	}
	p := s.b.packet[:n]
	if r := admit(p); r != dropNone {
		s.drop(r, 1)
		return false, nil
	}
	_, err = unix.Write(s.deviceFD, p)
	s.decap.syscalls.Add(1)
	if err != nil {
		s.drop(dropDeviceWrite, 1)
		return false, nil
	}
	s.decap.moved(1, n)
	return false, nil
}
