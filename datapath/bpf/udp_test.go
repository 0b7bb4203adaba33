package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/topology"
)

// Each end is a different program for the same wire format: they have to agree.
func TestUDPCarriesBetweenImplementations(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	for _, pair := range [][2]topology.UDPImplementation{
		{topology.UDPeBPF, topology.UDPeBPF},
		{topology.UDPeBPF, topology.UDPBatched},
		{topology.UDPeBPF, topology.UDPSimple},
	} {
		t.Run(fmt.Sprintf("%s and %s", pair[0], pair[1]), func(t *testing.T) {
			r := newUDPRig(t)
			for i, impl := range pair {
				realWire(t, r.nodes[i].ns, "eth0")
				r.nodes[i].carry(t, impl)
			}
			a, b := &r.nodes[0], &r.nodes[1]
			for _, way := range [][2]*udpNode{{a, b}, {b, a}} {
				from, to := way[0], way[1]
				if out, err := from.ping(t, to.podAddr, 3, udpMTU-28, "do"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if out, err := from.ping(t, to.podAddr, 1, 6000, "dont"); err != nil {
					t.Errorf("fragments did not pass: %v\n%s", err, out)
				}
				transfer(t, &from.node, &to.node, 8<<20)
				datagrams(t, from, to, 60000, 0)
				datagrams(t, from, to, 10*1200, 1200)
			}
		})
	}
}

// datagrams sends size bytes from a pod by UDP, in segments if segment is not
// zero (UDP_SEGMENT), and compares what the other pod gets.
func datagrams(t *testing.T, from, to *udpNode, size, segment int) {
	t.Helper()
	var in net.PacketConn
	check(t, to.pod.Do(func() (err error) {
		in, err = net.ListenPacket("udp4", netip.AddrPortFrom(to.podAddr, 0).String())
		return err
	}))
	defer in.Close() //nolint:errcheck // read only
	var out *net.UDPConn
	check(t, from.pod.Do(func() (err error) {
		out, err = net.DialUDP("udp4", nil, in.LocalAddr().(*net.UDPAddr))
		return err
	}))
	defer out.Close() //nolint:errcheck // scratch
	if segment > 0 {
		raw, err := out.SyscallConn()
		check(t, err)
		check(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment) }))
		check(t, err)
	}
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * 7 / 256)
	}
	_, err := out.Write(sent)
	check(t, err)
	check(t, in.SetReadDeadline(time.Now().Add(5*time.Second)))
	got, buf := make([]byte, 0, size), make([]byte, 1<<16)
	for len(got) < size {
		n, _, err := in.ReadFrom(buf)
		if err != nil {
			t.Errorf("after %d of %d bytes in segments of %d: %v", len(got), size, segment, err)
			return
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes in segments of %d arrived changed", size, segment)
	}
}

// Large packets stay whole from pod to pod, although bridges are in between: what
// comes out of the tunnel must bear no marks of having been in it.
func TestUDPLargePacketsStayWhole(t *testing.T) {
	r := newUDPRig(t)
	for i := range r.nodes {
		r.nodes[i].carry(t, topology.UDPeBPF)
	}
	from, to := &r.nodes[0], &r.nodes[1]
	pod := listen(t, to.pod, "eth0")
	const size = 64 << 20
	transfer(t, &from.node, &to.node, size)
	largest := 0
	for range 4 { // two of the handshake, then the first data; more than a few do not fit the listener
		largest = max(largest, len(pod.next(t, from.podAddr.String())))
	}
	if largest < 4*udpMTU {
		t.Errorf("the largest packet that the pod got has %d bytes: segmented on the way", largest)
	}
	sent, got := from.stats(t), to.stats(t)
	if sent.EncapBytes < size || got.DecapBytes < size {
		t.Errorf("counted %d bytes in and %d out of the tunnel for a transfer of %d", sent.EncapBytes, got.DecapBytes, size)
	}
	if mean := sent.EncapBytes / sent.EncapPackets; mean < 4*udpMTU {
		t.Errorf("encapsulated %d bytes a packet: segmented before", mean)
	}
	for _, c := range []bpf.UDPCounters{sent, got} {
		// What is not IPv4 is the kernel's, which asks for routers when it likes.
		if c.Failed+c.BadLength+c.NoLease+c.TooLong+c.Coalesced+c.TTLExpired != 0 {
			t.Errorf("packets were lost: %+v", c)
		}
	}
	datagrams(t, from, to, 40*1400, 1400)
}

// The outer header is that of a datagram of flannel's process; the TTL inside
// drops at the node, at the tunnel's one end, at its other, and at the other node.
func TestUDPOuterHeader(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	r := newUDPRig(t)
	for i := range r.nodes {
		r.nodes[i].carry(t, topology.UDPeBPF)
	}
	a, b := &r.nodes[0], &r.nodes[1]
	wire, pod := listen(t, b.ns, "eth0"), listen(t, b.pod, "eth0")
	if out, err := a.ping(t, b.podAddr, 1, 100, "do"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	frame := wire.next(t, "172.30.0.1")
	const inner = 20 + 8 + 100
	want := outer{Src: "172.30.0.1", Dst: "172.30.0.2", Protocol: 17, TTL: 64, DF: true, Length: 28 + inner, ChecksumOK: true}
	if diff := cmp.Diff(want, readOuter(t, frame)); diff != "" {
		t.Error(diff)
	}
	// RFC 768: ports, length of header and data, no checksum.
	if udp := [4]uint16(words16(frame[34:42])); udp != [4]uint16{8285, 8285, 8 + inner, 0} {
		t.Errorf("UDP header %d", udp)
	}
	if in := frame[42:62]; in[8] != 62 || checksum(in) != 0 {
		t.Errorf("on the wire the TTL inside is %d and the header's checksum off by %#x, want 62 and 0", in[8], checksum(in))
	}
	if in := pod.next(t, a.podAddr.String())[14:34]; in[8] != 60 || checksum(in) != 0 {
		t.Errorf("at the pod the TTL is %d and the header's checksum off by %#x, want 60 and 0", in[8], checksum(in))
	}
}

func words16(b []byte) []uint16 {
	out := make([]uint16, len(b)/2)
	for i := range out {
		out[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return out
}

// Where no lease holds the destination, its sender is told, be it a pod or the
// node itself.
func TestUDPNoLease(t *testing.T) {
	r := newUDPRig(t)
	a := &r.nodes[0]
	a.carry(t, topology.UDPeBPF)
	for _, from := range []*netns.NS{a.pod, a.ns} {
		var err error
		check(t, from.Do(func() error {
			_, err = net.DialTimeout("tcp4", "10.244.9.9:80", 5*time.Second)
			return nil
		}))
		if !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("connect: %v, want that the network is unreachable", err)
		}
	}
	if c := a.stats(t); c.NoLease < 2 || c.Unreachables != c.NoLease || c.Failed != 0 {
		t.Errorf("counted %+v, want an answer to each", c)
	}
}

// An answer is a valid ICMP message with the packet's beginning in it.
func TestUDPUnreachableMessage(t *testing.T) {
	r := newUDPRig(t)
	a := &r.nodes[0]
	a.carry(t, topology.UDPeBPF)
	seen := listen(t, a.pod, "eth0")
	var c net.Conn
	check(t, a.pod.Do(func() (err error) {
		c, err = net.Dial("udp4", "10.244.9.9:4242")
		return err
	}))
	defer c.Close() //nolint:errcheck // scratch
	_, err := c.Write(bytes.Repeat([]byte("x"), 700))
	check(t, err)
	frame := seen.next(t, "10.244.9.9")
	ip, icmp := frame[14:34], frame[34:]
	if len(icmp) != 8+20+8 || checksum(ip) != 0 || checksum(icmp) != 0 {
		t.Fatalf("ICMP message of %d bytes, checksums off by %#x and %#x", len(icmp), checksum(ip), checksum(icmp))
	}
	quoted := icmp[8:]
	if icmp[0] != 3 || icmp[1] != 0 || [4]byte(quoted[12:16]) != a.podAddr.As4() || binary.BigEndian.Uint16(quoted[22:]) != 4242 {
		t.Errorf("message % x, want net unreachable (3, 0) about the pod's datagram to port 4242", icmp)
	}
	if ip[8] != 7 {
		t.Errorf("TTL %d, want 8 (flanneld's) less one", ip[8])
	}
}

// What is not one IPv4 packet in one datagram is not taken; what is for others is
// left to the stack.
func TestUDPTakesOnlyWhatIsWellFormed(t *testing.T) {
	r := newUDPRig(t)
	a, b := &r.nodes[0], &r.nodes[1]
	b.carry(t, topology.UDPeBPF)
	good := udpPacket(b.podAddr, 64)
	inner := func(change func([]byte)) []byte {
		p := bytes.Clone(good)
		change(p)
		return p
	}
	gpe := append([]byte{0x0c, 0, 0, 1, 0, 0, 1, 0}, good...)
	for _, tt := range []struct {
		name   string
		packet []byte
		want   bpf.UDPCounters
	}{
		{"well formed", datagramTo(b.udp.Local, good), bpf.UDPCounters{DecapPackets: 1, DecapBytes: uint64(len(good))}},
		{"shorter than it says", datagramTo(b.udp.Local, inner(func(p []byte) { p[3]++ })), bpf.UDPCounters{BadLength: 1}},
		{"longer than it says", datagramTo(b.udp.Local, append(bytes.Clone(good), 0)), bpf.UDPCounters{BadLength: 1}},
		{"half a header", datagramTo(b.udp.Local, good[:12]), bpf.UDPCounters{BadLength: 1}},
		{"empty", datagramTo(b.udp.Local, nil), bpf.UDPCounters{BadLength: 1}},
		{"short header length", datagramTo(b.udp.Local, inner(func(p []byte) { p[0] = 0x44 })), bpf.UDPCounters{BadLength: 1}},
		{"IPv6", datagramTo(b.udp.Local, inner(func(p []byte) { p[0] = 0x65 })), bpf.UDPCounters{NotIPv4: 1}},
		{"last hop", datagramTo(b.udp.Local, inner(func(p []byte) { p[8] = 1 })), bpf.UDPCounters{TTLExpired: 1}},
		{"VXLAN-GPE", datagramTo(b.udp.Local, gpe), bpf.UDPCounters{NotIPv4: 1}},
		{"another port", datagramTo(netip.AddrPortFrom(b.udp.Local.Addr(), 8286), good), bpf.UDPCounters{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, bpf.AttachUDP(b.ns, b.udp)) // counters begin at zero
			seen := listen(t, b.ns, "eth0")
			sendRaw(t, a.ns, tt.packet)
			seen.next(t, "198.51.100.1")
			testnet.Eventually(t, 2*time.Second, "counters", func() (bool, string) {
				got := b.stats(t)
				return got == tt.want, cmp.Diff(tt.want, got)
			})
		})
	}
}

// datagramTo wraps a payload in IPv4 and UDP without a checksum.
func datagramTo(to netip.AddrPort, payload []byte) []byte {
	b := ipHeader(to.Addr(), 17, 0, 28+len(payload))
	b = binary.BigEndian.AppendUint16(b, 8285)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

func TestUDPAttachUpdateDetach(t *testing.T) {
	r := newUDPRig(t)
	n := &r.nodes[0]
	attached := func(cfg datapath.UDPTunnel) bool {
		t.Helper()
		ok, err := bpf.UDPAttached(n.ns, cfg)
		check(t, err)
		return ok
	}
	left := func() bool {
		t.Helper()
		ok, err := bpf.UDPLeft(n.ns, n.udp)
		check(t, err)
		return ok
	}
	if attached(n.udp) || left() {
		t.Fatal("attached before there is a device")
	}
	n.carry(t, topology.UDPeBPF)
	open := descriptors(t)
	if !attached(n.udp) || !left() {
		t.Fatal("not attached after AttachUDP")
	}
	more := n.udp
	more.Leases = append([]datapath.TunnelLease{{Subnet: netip.MustParsePrefix("10.244.0.0/24"), Remote: netip.MustParseAddrPort("172.30.0.3:8285")}}, n.udp.Leases...)
	if attached(more) {
		t.Error("a further lease counts as attached")
	}
	check(t, bpf.AttachUDP(n.ns, more))
	if !attached(more) || attached(n.udp) {
		t.Error("leases were not replaced")
	}
	for _, dev := range []string{"flannel0", "eth0"} {
		if got := filterNames(t, n.ns, dev); len(got) != 1 {
			t.Errorf("%s has filters %q, want one", dev, got)
		}
	}
	h := testnet.Handle(t, n.ns)
	check(t, h.LinkDel(mustLink(t, h, "flannel0")))
	if attached(more) || !left() {
		t.Error("with flannel0 gone: attached, or nothing left on eth0")
	}
	for range 2 {
		check(t, bpf.DetachUDP(n.ns, n.udp))
	}
	if left() || descriptors(t) != open {
		t.Errorf("left %v, %d BPF descriptors where there were %d", left(), descriptors(t), open)
	}
	if got := qdiscs(t, n.ns, "eth0"); strings.Contains(got, "clsact") {
		t.Errorf("eth0 still has %s", got)
	}
	if _, err := bpf.UDPStats(n.ns, n.udp); !errors.Is(err, bpf.ErrNoUDPPrograms) {
		t.Errorf("counters after detaching: %v, want ErrNoUDPPrograms", err)
	}
}

func TestProbeUDP(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.BPF)
	check(t, bpf.ProbeUDP())
}
