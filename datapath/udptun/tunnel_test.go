package udptun

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

func TestPingLosesTwoTTL(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			a, b := newPair(t, c.a, c.b)
			out, err := run.Cmd{NS: a.ns, Name: "ping", Args: []string{"-n", "-c", "3", "-i", "0.01", "-W", "2", b.inner.String()}}.Output(t.Context())
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			// The echo reply starts at 64 and passes two tunnel ends.
			if n := strings.Count(string(out), "ttl=62"); n != 3 {
				t.Errorf("want 3 replies with ttl=62:\n%s", out)
			}
		})
	}
}

func TestUDPEchoOfAllSizes(t *testing.T) {
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			a, b := newPair(t, c.a, c.b)
			echo := b.listenPacket(t, addrB.String()+":0")
			go serveEcho(echo)
			conn := a.dial(t, "udp4", echo.LocalAddr().String())
			sizes := []int{3000, 8999, 65507} // fragments
			for n := 1; n <= innerMTU-28; n++ {
				sizes = append(sizes, n)
			}
			for _, n := range sizes {
				echoOnce(t, conn, randomBytes(n))
			}
			if drops := dropsOf(a, b); len(drops) > 0 {
				t.Errorf("drops: %v", drops)
			}
		})
	}
}

// echoOnce sends one datagram and wants it back.
func echoOnce(t *testing.T, conn net.Conn, want []byte) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(want); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, maxIPPacket)
	n, err := conn.Read(got)
	if err != nil {
		t.Fatalf("echo of %d bytes: %v", len(want), err)
	}
	if !bytes.Equal(got[:n], want) {
		t.Fatalf("echo of %d bytes came back different, %d bytes", len(want), n)
	}
}

// dropsOf sums up the nodes' drops.
func dropsOf(nodes ...*node) map[string]uint64 {
	out := map[string]uint64{}
	for _, n := range nodes {
		for reason, count := range n.tunnel.Stats().Drops {
			out[reason] += count
		}
	}
	return out
}

func TestSegmentedUDPArrivesWhole(t *testing.T) {
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			a, b := newPair(t, c.a, c.b)
			sink := b.listenPacket(t, addrB.String()+":0")
			conn := a.dial(t, "udp4", sink.LocalAddr().String()).(*net.UDPConn)
			for _, size := range []int{100, 999, 1444} {
				setSegment(t, conn, size)
				sendSegmented(t, conn, sink, size, 30*size+size/3) // an odd rest
			}
		})
	}
}

// setSegment makes each write many datagrams of size bytes: USO on the TUN.
func setSegment(t *testing.T, conn *net.UDPConn, size int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) }); err != nil {
		t.Fatal(err)
	}
	if set != nil {
		t.Fatal(set)
	}
}

func sendSegmented(t *testing.T, conn, sink *net.UDPConn, size, total int) {
	t.Helper()
	want := randomBytes(total)
	if _, err := conn.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := sink.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxIPPacket)
	for len(want) > 0 {
		n, err := sink.Read(buf)
		if err != nil {
			t.Fatalf("with %d bytes missing: %v", len(want), err)
		}
		expect := want[:min(size, len(want))]
		if !bytes.Equal(buf[:n], expect) {
			t.Fatalf("got another datagram (%d bytes) than the %d bytes sent", n, len(expect))
		}
		want = want[n:]
	}
}

func TestTCPContent(t *testing.T) {
	for _, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			a, b := newPair(t, c.a, c.b)
			transfer(t, a, b, c.bytes)
			if drops := dropsOf(a, b); len(drops) > 0 {
				t.Errorf("drops: %v", drops)
			}
		})
	}
}

// transfer sends n bytes over TCP and compares what arrives by its hash.
func transfer(t *testing.T, from, to *node, n int64) {
	t.Helper()
	l := to.listen(t, to.inner.String()+":0")
	got := make(chan [sha256.Size]byte, 1)
	go func() {
		var sum [sha256.Size]byte
		if c, err := l.Accept(); err == nil {
			h := sha256.New()
			_, _ = io.Copy(h, c) // an error shows in the hash
			sum = [sha256.Size]byte(h.Sum(nil))
			_ = c.Close()
		}
		got <- sum
	}()
	c := from.dial(t, "tcp4", l.Addr().String())
	want := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(io.MultiWriter(c, want), source, make([]byte, 128<<10)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if sum := <-got; !bytes.Equal(sum[:], want.Sum(nil)) {
		t.Errorf("%d bytes arrived different", n)
	}
}

func TestTTLRunsOut(t *testing.T) {
	for _, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
		t.Run(string(impl), func(t *testing.T) {
			a, b := newPair(t, impl, impl)
			sink := b.listenPacket(t, addrB.String()+":0")
			conn := a.dial(t, "udp4", sink.LocalAddr().String()).(*net.UDPConn)
			send := func(ttl int) {
				raw, err := conn.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) })
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write([]byte{byte(ttl)}); err != nil {
					t.Fatal(err)
				}
			}
			send(1)
			waitFor(t, "the first end to drop TTL 1", func() bool { return a.tunnel.Stats().Drops["ttl"] == 1 })
			send(2)
			waitFor(t, "the second end to drop TTL 1", func() bool { return b.tunnel.Stats().Drops["ttl"] == 1 })
			send(3)
			buf := make([]byte, 8)
			if err := sink.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := sink.Read(buf); err != nil || n != 1 || buf[0] != 3 {
				t.Errorf("got % x, %v; want only the datagram with TTL 3", buf[:n], err)
			}
		})
	}
}

func TestNoLeaseIsUnreachableUntilSet(t *testing.T) {
	for _, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
		t.Run(string(impl), func(t *testing.T) {
			a, b := newPair(t, impl, impl)
			a.tunnel.SetLeases(nil)
			echo := b.listenPacket(t, addrB.String()+":0")
			go serveEcho(echo)
			conn := a.dial(t, "udp4", echo.LocalAddr().String()).(*net.UDPConn)
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			// A UDP socket learns of a soft error only if it asks (ip(7)).
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1) })
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("lost")); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 8)); !errors.Is(err, unix.ENETUNREACH) {
				t.Fatalf("read: %v, want %v", err, unix.ENETUNREACH)
			}
			waitFor(t, "the count", func() bool {
				s := a.tunnel.Stats()
				return s.Drops["no-lease"] == 1 && s.Unreachables == 1
			})
			a.tunnel.SetLeases([]datapath.TunnelLease{b.lease()})
			echoOnce(t, conn, []byte("found"))
		})
	}
}

func TestSetLeasesUnderLoad(t *testing.T) {
	a, b := newPair(t, topology.UDPBatched, topology.UDPSimple)
	stop := make(chan struct{})
	swapped := make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				swapped <- n
				return
			default:
			}
			other := datapath.TunnelLease{Subnet: netip.MustParsePrefix("10.244.7.0/24"), Remote: netip.MustParseAddrPort("192.168.77.7:8285")}
			a.tunnel.SetLeases([]datapath.TunnelLease{other, b.lease()}[n%2:])
		}
	}()
	transfer(t, a, b, 8<<20)
	close(stop)
	if n := <-swapped; n < 100 {
		t.Errorf("leases were swapped only %d times during the transfer", n)
	}
}

func TestMalformedDatagramsAreCounted(t *testing.T) {
	for _, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
		t.Run(string(impl), func(t *testing.T) {
			a, b := newPair(t, impl, impl)
			conn := a.dial(t, "udp4", netip.AddrPortFrom(b.outer, port).String())
			good := testPacket(t, packetSpec{proto: protoUDP, payload: 10})
			for _, p := range [][]byte{{}, {0x45}, good[:19], append(good[:len(good):len(good)], 0), good[:len(good)-1]} {
				if _, err := conn.Write(p); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.Write(append([]byte{0x60}, make([]byte, 39)...)); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the counts", func() bool {
				d := b.tunnel.Stats().Drops
				return d["malformed"] == 5 && d["not-ipv4"] == 1
			})
			if n := b.tunnel.Stats().Decapsulated.Packets; n != 0 {
				t.Errorf("%d packets reached the TUN", n)
			}
		})
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}
