package udptun

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/topology"
)

// capture returns a function that gives the next IPv4 packet that arrives at the
// node's device, and false when none does for a while.
func (n *node) capture(t *testing.T, device string) func() ([]byte, bool) {
	t.Helper()
	link, err := n.h.LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // network order
	fd := -1
	err = n.ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	wait := unix.NsecToTimeval((500 * time.Millisecond).Nanoseconds())
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
	)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxIPPacket)
	return func() ([]byte, bool) {
		for {
			k, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return nil, false
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_HOST {
				return buf[:k], true
			}
		}
	}
}

// TestWireFormat reads the bytes that pass between the nodes: a UDP datagram from
// and to port 8285, and directly in it the inner packet with one off its TTL.
func TestWireFormat(t *testing.T) {
	for _, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
		t.Run(string(impl), func(t *testing.T) {
			a, b := newPair(t, impl, impl)
			next := b.capture(t, "eth0")
			sink := b.listenPacket(t, addrB.String()+":0")
			conn := a.dial(t, "udp4", sink.LocalAddr().String())
			if _, err := conn.Write([]byte("payload")); err != nil {
				t.Fatal(err)
			}
			p, ok := next()
			if !ok {
				t.Fatal("nothing on the wire")
			}
			inner := innerOf(t, p)
			wellFormed(t, inner)
			if inner[offTTL] != 63 {
				t.Errorf("inner TTL %d, want 63", inner[offTTL])
			}
			if want := 20 + 8 + len("payload"); len(inner) != want || string(inner[28:]) != "payload" {
				t.Errorf("inner packet % x, want %d bytes that end in the payload", inner, want)
			}
			to, ok := sink.LocalAddr().(*net.UDPAddr)
			if !ok || int(binary.BigEndian.Uint16(inner[22:])) != to.Port {
				t.Errorf("inner destination port of % x, want that of %v", inner, sink.LocalAddr())
			}
		})
	}
}

// innerOf checks an outer packet from a to b and returns what it carries.
func innerOf(t *testing.T, p []byte) []byte {
	t.Helper()
	if len(p) < 28 || p[0] != 0x45 || p[9] != protoUDP || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		t.Fatalf("outer packet % x…", p[:min(len(p), 28)])
	}
	if got := [8]byte(p[12:20]); got != [8]byte{192, 168, 77, 1, 192, 168, 77, 2} {
		t.Fatalf("outer addresses %v", got)
	}
	if s, d, n := binary.BigEndian.Uint16(p[20:]), binary.BigEndian.Uint16(p[22:]), binary.BigEndian.Uint16(p[24:]); s != port || d != port || int(n) != len(p)-20 {
		t.Fatalf("outer UDP header %d -> %d, length %d of %d", s, d, n, len(p)-20)
	}
	return p[28:]
}

// TestOrdinaryPacketsOnTheWire has the device segment in software, so that what a
// cable would carry is seen: no packet exceeds the MTU, none is a fragment, each
// holds exactly one inner packet with good checksums, and nothing is missing.
func TestOrdinaryPacketsOnTheWire(t *testing.T) {
	a, b := newPair(t, topology.UDPBatched, topology.UDPBatched)
	link, err := a.h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.h.LinkSetGSOMaxSegs(link, 1); err != nil {
		t.Fatal(err)
	}
	next := b.capture(t, "eth0")
	const n = 4 << 20
	transfer(t, a, b, n)

	payload, full := 0, 0
	for {
		p, ok := next()
		if !ok {
			break
		}
		if len(p) > underlayMTU || binary.BigEndian.Uint16(p[offFrag:])&fragMask != 0 {
			t.Fatalf("outer packet of %d bytes, fragment field %x", len(p), p[offFrag:offTTL])
		}
		if p[9] != protoUDP {
			continue
		}
		inner := innerOf(t, p)
		wellFormed(t, inner)
		tcp := int(inner[minIP+offDataOffs]>>4) * 4
		payload += len(inner) - minIP - tcp
		if len(p) == underlayMTU {
			full++
		}
	}
	// TCP may have sent some of it twice.
	if payload < n || full < n/innerMTU*9/10 {
		t.Errorf("%d bytes of payload in captured packets, %d of them full, of a transfer of %d bytes", payload, full, n)
	}
	// Moving them one by one takes two calls each.
	if s := a.tunnel.Stats().Encapsulated; s.Packets < s.Syscalls {
		t.Errorf("%d packets in %d system calls: nothing was batched", s.Packets, s.Syscalls)
	}
}

// TestUnderlayWithASmallerMTU: where a datagram does not fit, the kernel refuses
// to segment a message and the tunnel falls back to sending, and the kernel to
// fragmenting, the datagrams one by one.
func TestUnderlayWithASmallerMTU(t *testing.T) {
	for _, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
		t.Run(string(impl), func(t *testing.T) {
			a, b := newPair(t, impl, impl)
			link, err := a.h.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			if err := a.h.LinkSetMTU(link, 1400); err != nil {
				t.Fatal(err)
			}
			transfer(t, a, b, 1<<20)
			if drops := dropsOf(a, b); len(drops) > 0 {
				t.Errorf("drops: %v", drops)
			}
		})
	}
}
