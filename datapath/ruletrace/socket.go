package ruletrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socket speaks netfilter's netlink in the namespace where it was opened. The
// table and the log are its own and end with it.
type socket struct {
	fd     int
	buffer []byte
}

// receiveBytes is room for some thousand hits that are not yet read.
const receiveBytes = 4 << 20

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, buffer: make([]byte, 1<<16)}
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBytes),
	); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// join subscribes to a group of messages.
func (s *socket) join(group int) error {
	return unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
}

func (s *socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// commit sends what nftables shall do, as a whole or not at all.
func (s *socket) commit(requests []*nl.NetlinkRequest) error {
	edge := func(kind uint16) []byte {
		return message(kind, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES).Serialize()
	}
	b := edge(unix.NFNL_MSG_BATCH_BEGIN)
	last := requests[len(requests)-1]
	last.Flags |= unix.NLM_F_ACK
	for _, r := range requests {
		b = append(b, r.Serialize()...)
	}
	if err := s.send(append(b, edge(unix.NFNL_MSG_BATCH_END)...)); err != nil {
		return err
	}
	return s.await(last.Seq)
}

// ask sends requests that are answered each by itself.
func (s *socket) ask(requests []*nl.NetlinkRequest) error {
	for _, r := range requests {
		if err := s.send(r.Serialize()); err != nil {
			return err
		}
		if err := s.await(r.Seq); err != nil {
			return err
		}
	}
	return nil
}

// errNoAnswer reports that the kernel, which answers while it is asked, did not.
var errNoAnswer = errors.New("the kernel did not answer")

// await reads the acknowledgement of that request; an error of one before it
// comes instead. Hits that are already there are dropped: nobody asked for them.
func (s *socket) await(seq uint32) error {
	for {
		messages, err := s.receive()
		if err != nil {
			return err
		}
		if messages == nil {
			return errNoAnswer
		}
		for _, m := range messages {
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				return unix.Errno(-code)
			}
			if m.Header.Seq == seq {
				return nil
			}
		}
	}
}

// receive returns the next messages, nil if there are none now.
func (s *socket) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(s.buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("parse netlink message: %w", err)
		}
		return messages, nil
	}
}

// device names the device of that number, empty if there is none.
func (s *socket) device(index uint32) string {
	if index == 0 {
		return ""
	}
	r, err := unix.NewIfreq("by-index")
	if err != nil {
		return ""
	}
	r.SetUint32(index)
	if err := unix.IoctlIfreq(s.fd, unix.SIOCGIFNAME, r); err != nil {
		return "" // deleted since
	}
	return r.Name()
}
