package echo

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDatagram is the largest UDP payload over IPv4, in bytes: 65535 less 20 of
// IP and 8 of UDP header (RFC 768, RFC 791), rounded up.
const maxDatagram = 64 << 10

// datagram is what is needed while one datagram is being answered.
type datagram struct {
	data [maxDatagram]byte
	oob  [64]byte // one IP_PKTINFO control message
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// udpServer sends each datagram back to where it came from.
type udpServer struct {
	conn *net.UDPConn
	raw  syscall.RawConn
}

// listenUDP opens a port in the namespace of the calling thread.
func listenUDP(port int) (*udpServer, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var serr error
		err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
		if err == nil {
			err = serr
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &udpServer{conn: conn, raw: raw}, nil
}

// Close ends serve.
func (u *udpServer) Close() error { return u.conn.Close() }

// serve answers until the socket is closed. It holds a buffer only between the
// moment when a datagram is there and the one when no more are.
func (u *udpServer) serve() {
	for {
		err := u.raw.Read(func(fd uintptr) bool {
			d := datagrams.Get().(*datagram)
			defer datagrams.Put(d)
			for {
				if again := d.answer(int(fd)); !again {
					return false // wait until readable
				}
			}
		})
		if err != nil {
			return // closed
		}
	}
}

// answer echoes one datagram; false when none is there. The control message
// that came with it goes back with the reply, so that the reply leaves from the
// address that was asked (ip(7), IP_PKTINFO). A reply that cannot be sent is
// lost, as datagrams may be.
func (d *datagram) answer(fd int) bool {
	n, oobn, _, from, err := unix.Recvmsg(fd, d.data[:], d.oob[:], unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err != nil {
		return true // an earlier reply's ICMP error, now taken off the socket
	}
	_ = unix.Sendmsg(fd, d.data[:n], replyFrom(d.oob[:oobn]), from, unix.MSG_DONTWAIT)
	return true
}

// replyFrom turns a received IP_PKTINFO into one for sending: spec_dst is the
// local address to send from; the interface is left to the routing table.
func replyFrom(oob []byte) []byte {
	const info = unix.SizeofCmsghdr // offset of struct in_pktinfo
	if len(oob) < info+unix.SizeofInet4Pktinfo {
		return nil
	}
	clear(oob[info : info+4]) // ipi_ifindex
	return oob[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)]
}
