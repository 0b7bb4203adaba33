package bpf_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// outer is what the outer header of a captured packet says.
type outer struct {
	Src, Dst   string
	Protocol   layers.IPProtocol
	TTL, TOS   uint8
	DF         bool
	Length     uint16
	ChecksumOK bool
}

func TestOuterHeader(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	const (
		payload = 100
		inner   = 20 + 8 + payload
		ttl     = 17
		tos     = 0xb9 // expedited forwarding and ECT(1)
	)
	// The node forwards the pod's packet once; the outer TTL is what is left
	// (net/ipv4/ip_tunnel.c). The DSCP stays inside, the ECN bits do not.
	want := outer{
		Src: "172.30.1.1", Dst: "172.30.2.1", Protocol: layers.IPProtocolIPv4,
		TTL: ttl - 1, TOS: 1, DF: true, Length: inner + 20, ChecksumOK: true,
	}
	for _, impl := range []topology.IPIPImplementation{topology.IPIPeBPF, topology.IPIPUserspace} {
		t.Run(string(impl), func(t *testing.T) {
			r := newRig(t)
			for i := range r.nodes {
				realWire(t, r.nodes[i].ns, "eth0")
				r.nodes[i].carry(t, impl)
			}
			for _, df := range []bool{true, false} {
				want.DF = df
				pmtudisc := map[bool]string{true: "do", false: "dont"}[df]
				wire := listen(t, r.router, "r1")
				out, err := run.Cmd{NS: r.nodes[0].pod, Name: "ping", Args: []string{
					"-n", "-c", "1", "-W", "2", "-s", "100", "-t", "17", "-Q", "0xb9", "-M", pmtudisc, r.nodes[1].podAddr.String(),
				}}.Output(t.Context())
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				frame := wire.next(t, "172.30.1.1")
				if diff := cmp.Diff(want, readOuter(t, frame)); diff != "" {
					t.Errorf("DF %v: outer header (-want +got):\n%s", df, diff)
				}
				tsharkAgrees(t, frame)
			}
		})
	}
}

// tsharkAgrees has another decoder name what is in the frame.
func tsharkAgrees(t *testing.T, frame []byte) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Logf("not compared with tshark: %v", err)
		return
	}
	var pcap bytes.Buffer
	w := pcapgo.NewWriter(&pcap)
	check(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	check(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(frame), Length: len(frame)}, frame))
	out, err := run.Cmd{Name: "tshark", Stdin: &pcap, Args: []string{
		"-r", "-", "-n", "-o", "ip.check_checksum:TRUE", "-T", "fields",
		"-e", "frame.protocols", "-e", "ip.proto", "-e", "ip.checksum.status",
	}}.Output(t.Context())
	check(t, err)
	// IPIP outside, ICMP inside, both checksums good (1).
	if got, want := strings.TrimSpace(string(out)), "eth:ethertype:ip:ip:icmp:data\t4,1\t1,1"; got != want {
		t.Errorf("tshark says %q, want %q", got, want)
	}
}

func readOuter(t *testing.T, frame []byte) outer {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ok {
		t.Fatalf("not IPv4: %v", p)
	}
	return outer{
		Src: ip.SrcIP.String(), Dst: ip.DstIP.String(), Protocol: ip.Protocol,
		TTL: ip.TTL, TOS: ip.TOS, DF: ip.Flags&layers.IPv4DontFragment != 0,
		Length: ip.Length, ChecksumOK: checksum(ip.Contents) == 0,
	}
}

// checksum is RFC 1071's over a header; 0 for one that contains its own.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// What is not a whole IPv4 packet in an unfragmented outer one to this node is
// not let in, and is counted where it is dropped.
func TestDecapTakesOnlyWhatIsSane(t *testing.T) {
	r := newRig(t)
	n := &r.nodes[1]
	check(t, bpf.AttachIPIP(n.ns, n.tunnel))
	node, pod := n.tunnel.Local, n.podAddr
	good := udpPacket(pod, 64)
	long := bytes.Clone(good)
	binary.BigEndian.PutUint16(long[2:], uint16(len(good)+1))
	ipv6 := bytes.Clone(good)
	ipv6[0] = 0x65
	capable := bytes.Clone(good)
	capable[1] = 2 // ECT(0)
	binary.BigEndian.PutUint16(capable[10:], 0)
	binary.BigEndian.PutUint16(capable[10:], checksum(capable[:20]))
	tests := []struct {
		name   string
		packet []byte
		want   bpf.Counters
	}{
		{"whole", ipipPacket(node, 0, good), bpf.Counters{DecapPackets: 1, DecapBytes: uint64(len(good))}},
		{"inner longer than outer", ipipPacket(node, 0, long), bpf.Counters{BadLength: 1}},
		{"half a header", ipipPacket(node, 0, good[:12]), bpf.Counters{BadLength: 1}},
		{"not IPv4", ipipPacket(node, 0, ipv6), bpf.Counters{NotIPv4: 1}},
		{"first fragment", ipipPacket(node, 0x2000, good), bpf.Counters{}},
		{"later fragment", ipipPacket(node, 8, good), bpf.Counters{}},
		{"congestion, ECN capable", congested(ipipPacket(node, 0, capable)), bpf.Counters{DecapPackets: 1, DecapBytes: uint64(len(good))}},
		{"congestion, not ECN capable", congested(ipipPacket(node, 0, good)), bpf.Counters{Failed: 1}}, // RFC 6040: lost
		{"not IPIP", udpPacket(node, 64), bpf.Counters{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, bpf.AttachIPIP(n.ns, n.tunnel)) // counters begin at zero
			seen := listen(t, n.ns, "eth0")
			sendRaw(t, r.router, tt.packet)
			seen.next(t, "198.51.100.1") // by then tc is next, in the same softirq
			testnet.Eventually(t, 2*time.Second, "counters", func() (bool, string) {
				got, err := bpf.Stats(n.ns, n.tunnel)
				check(t, err)
				return got == tt.want, cmp.Diff(tt.want, got)
			})
		})
	}
}

// A congestion mark from the outer header reaches the pod.
func TestCongestionIsHandedOn(t *testing.T) {
	r := newRig(t)
	n := &r.nodes[1]
	check(t, bpf.AttachIPIP(n.ns, n.tunnel))
	inner := udpPacket(n.podAddr, 64)
	inner[1] = 2 // ECT(0)
	binary.BigEndian.PutUint16(inner[10:], 0)
	binary.BigEndian.PutUint16(inner[10:], checksum(inner[:20]))
	seen := listen(t, n.pod, "eth0")
	sendRaw(t, r.router, congested(ipipPacket(n.tunnel.Local, 0, inner)))
	frame := seen.next(t, "198.51.100.1")
	if tos, sum := frame[15], checksum(frame[14:34]); tos != 3 || sum != 0 {
		t.Errorf("the pod got TOS %#x with a checksum off by %#x, want 0x3 and 0", tos, sum)
	}
}

func ipipPacket(dst netip.Addr, fragment uint16, inner []byte) []byte {
	return append(ipHeader(dst, 4, fragment, 20+len(inner)), inner...)
}

// congested marks a packet with CE, as a busy router does. The raw socket mends
// the checksum.
func congested(b []byte) []byte {
	b[1] |= 3
	return b
}

func udpPacket(dst netip.Addr, payload int) []byte {
	b := append(ipHeader(dst, 17, 0, 28+payload), make([]byte, 8+payload)...)
	binary.BigEndian.PutUint16(b[22:], 9) // discard
	binary.BigEndian.PutUint16(b[24:], uint16(8+payload))
	return b
}

func ipHeader(dst netip.Addr, proto byte, fragment uint16, total int) []byte {
	b := make([]byte, 20)
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	binary.BigEndian.PutUint16(b[4:], 1)
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{198, 51, 100, 1}) // RFC 5737
	d := dst.As4()
	copy(b[16:], d[:])
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return b
}

// sendRaw sends a packet with its own header from a namespace.
func sendRaw(t *testing.T, ns *netns.NS, packet []byte) {
	t.Helper()
	check(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // scratch
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])})
	}))
}

// listener sees the frames that pass a device.
type listener struct{ f *os.File }

func listen(t *testing.T, ns *netns.NS, dev string) listener {
	t.Helper()
	index := mustLink(t, testnet.Handle(t, ns), dev).Attrs().Index
	var fd int
	check(t, ns.Do(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		const allBigEndian = unix.ETH_P_ALL << 8
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allBigEndian, Ifindex: index})
	}))
	f := os.NewFile(uintptr(fd), "packet")
	t.Cleanup(func() { _ = f.Close() })
	return listener{f}
}

// next returns the next IPv4 frame from that source.
func (l listener) next(t *testing.T, src string) []byte {
	t.Helper()
	check(t, l.f.SetReadDeadline(time.Now().Add(5*time.Second)))
	want := netip.MustParseAddr(src).As4()
	buf := make([]byte, 1<<16)
	for {
		n, err := l.f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("no packet from %s passed: %v", src, context.DeadlineExceeded)
		}
		check(t, err)
		if n >= 34 && buf[12] == 8 && buf[13] == 0 && [4]byte(buf[26:30]) == want {
			return bytes.Clone(buf[:n])
		}
	}
}
