package main

import (
	"net"
	"syscall"
	"unsafe"
)

// maxDatagram is the largest UDP payload over IPv4, in bytes: 65535 less 20 of
// IP and 8 of UDP header (RFC 768, RFC 791), rounded up.
const maxDatagram = 64 << 10

// serveUDP sends each datagram that comes to a port back to where it came from,
// from the address that was asked (ip(7), IP_PKTINFO).
func serveUDP(port int) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1) })
	if err != nil || serr != nil {
		return serr
	}
	go answerUDP(conn)
	return nil
}

func answerUDP(conn *net.UDPConn) {
	data, oob := make([]byte, maxDatagram), make([]byte, 64)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(data, oob)
		if err != nil {
			continue // an earlier reply's ICMP error
		}
		// A reply that cannot be sent is lost, as datagrams may be.
		_, _, _ = conn.WriteMsgUDPAddrPort(data[:n], replyFrom(oob[:oobn]), from)
	}
}

// replyFrom turns a received IP_PKTINFO into one for sending: spec_dst is the
// local address to send from; the interface is left to the routing table.
func replyFrom(oob []byte) []byte {
	const info = int(unsafe.Sizeof(syscall.Cmsghdr{})) // offset of struct in_pktinfo
	if len(oob) < info+syscall.SizeofInet4Pktinfo {
		return nil
	}
	clear(oob[info : info+4]) // ipi_ifindex
	return oob[:syscall.CmsgSpace(syscall.SizeofInet4Pktinfo)]
}
