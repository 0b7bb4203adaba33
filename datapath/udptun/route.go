package udptun

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// admit prepares a datagram's payload for the TUN, or says why it may not go there.
func admit(p []byte) DropReason {
	if r := checkIPv4(p); r != dropNone {
		return r
	}
	if !decrementTTL(p) {
		return dropTTL
	}
	return dropNone
}

// route prepares a packet from the TUN for the wire and returns the peer that it
// goes to. nil means that the packet ends here, which is counted and, where there
// is no lease, answered. The order is flanneld's: first the lease, then the TTL.
// icmp is scratch space whose first headroom bytes, all zero, precede a packet
// that is written to the device.
func (t *Tunnel) route(p, icmp []byte, headroom int) *unix.RawSockaddrInet4 {
	if r := checkIPv4(p); r != dropNone {
		t.drop(r, 1)
		return nil
	}
	peer := t.leases.Load().lookup(p[offDst:])
	if peer == nil {
		t.drop(dropNoLease, 1)
		t.answerUnreachable(p, icmp, headroom)
		return nil
	}
	if !decrementTTL(p) {
		t.drop(dropTTL, 1)
		return nil
	}
	return peer
}

func (t *Tunnel) answerUnreachable(p, icmp []byte, headroom int) {
	answer := netUnreachable(icmp[headroom:headroom+maxICMP], p)
	if answer == nil {
		return
	}
	if _, err := unix.Write(t.deviceFD, icmp[:headroom+len(answer)]); err != nil {
		t.drop(dropDeviceWrite, 1)
		return
	}
	t.unreachables.Add(1)
}

// sendPatience is how long a full socket is waited for at a time, in milliseconds:
// the worker's other tunnels wait with it.
const sendPatience = 10

// waitWritable waits until the socket takes datagrams again: better that the TUN's
// queue fills, which its senders feel, than that packets are lost here.
func (t *Tunnel) waitWritable() error {
	fds := []unix.PollFd{{Fd: int32(t.socketFD), Events: unix.POLLOUT}} //nolint:gosec // a descriptor
	if _, err := unix.Poll(fds, sendPatience); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for UDP socket: %w", err)
	}
	if t.stopping.Load() {
		return errStopped
	}
	return nil
}
