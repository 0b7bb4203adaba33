package observe

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
)

// Protocol is what a probe is made of.
type Protocol string

// The protocols of probes.
const (
	ProbeTCP  Protocol = "tcp"  // a connection's SYN
	ProbeUDP  Protocol = "udp"  // a datagram with a marker
	ProbeICMP Protocol = "icmp" // an echo request with a marker
	ProbeSCTP Protocol = "sctp" // an association's INIT
)

// Fragmentation says what a probe asks of the don't-fragment bit.
type Fragmentation int

// The settings of the don't-fragment bit.
const (
	FragmentDefault Fragmentation = iota // the kernel's: set where the packet fits the path MTU
	FragmentNever                        // set, whatever is known of the path (IP_PMTUDISC_PROBE)
	FragmentAllowed                      // not set (IP_PMTUDISC_DONT)
)

// Spec describes a probe.
type Spec struct {
	Protocol Protocol
	To       netip.AddrPort // the port is not used by ICMP
	// Size is the payload in bytes; 0 stands for the marker alone. The payload
	// always holds the marker: smaller sizes are refused. TCP and SCTP open with
	// a packet that has none.
	Size     int
	TTL      uint8 // 0: the kernel's
	Fragment Fragmentation
}

// Probe is one packet sent from a namespace, and the socket that waits for its
// answer. The socket stays open until Close, so that the kernel does not answer
// a late reply with an error of its own.
type Probe struct {
	// Match is what Collect needs to find the probe.
	Match    Match
	Protocol Protocol
	Sent     time.Time

	spec   Spec
	ns     *netns.NS
	fd     int
	source netip.AddrPort
	icmpID uint16
	file   *os.File
}

// Send sends one probe from ns to an address (the port is not used by ICMP).
func Send(ns *netns.NS, protocol Protocol, to netip.AddrPort) (*Probe, error) {
	p, err := Prepare(ns, Spec{Protocol: protocol, To: to})
	if err != nil {
		return nil, err
	}
	if err := p.Fire(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Prepare opens a probe's socket and settles what identifies it, and sends
// nothing: an observer can be told what to look for. An unknown protocol of the
// kernel is EPROTONOSUPPORT.
func Prepare(ns *netns.NS, spec Spec) (*Probe, error) {
	p := &Probe{Protocol: spec.Protocol, spec: spec, ns: ns, fd: -1}
	err := ns.Do(func() (err error) {
		p.fd, err = p.open()
		return err
	})
	if err == nil {
		err = p.settle()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s probe from %s to %s: %w", spec.Protocol, ns.Name(), spec.To, err), p.Close())
	}
	return p, nil
}

// Fire sends the prepared probe. What the kernel refuses at once, such as a
// destination without a route, is returned as the system's error.
func (p *Probe) Fire() error {
	p.Sent = time.Now()
	if err := p.send(); err != nil {
		return fmt.Errorf("send %s probe from %s to %s: %w", p.Protocol, p.ns.Name(), p.spec.To, err)
	}
	p.file = os.NewFile(uintptr(p.fd), "probe") // non-blocking: joins the poller
	return nil
}

// Close gives up the probe's socket. A connection is reset, not closed, so that
// nothing of it lingers.
func (p *Probe) Close() error {
	if p.fd < 0 {
		return nil
	}
	if p.Protocol == ProbeTCP {
		_ = unix.SetsockoptLinger(p.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	fd := p.fd
	p.fd = -1
	if p.file != nil {
		return p.file.Close()
	}
	return unix.Close(fd)
}

// Headers of what probes send, in bytes: IPv4 without options (RFC 791 §3.1),
// an ICMP echo (RFC 792), a SYN with the options that Linux
// sends: MSS, SACK permitted, timestamps, window scale (net/ipv4/tcp_output.c,
// tcp_syn_options).
const (
	ipHeader   = 20
	icmpHeader = 8
	synHeader  = 40
	initChunk  = 12 + 20 // SCTP's common header and an INIT without options (RFC 9260 §3.1, §3.3.2)
)

// somePort stands for a probe's source port before there is one.
const somePort = firstFresh

// Packet is the packet that Fire sends, as far as it is known before: the
// source address is invalid where routing chooses it.
func (p *Probe) Packet() datapath.Packet {
	out := p.spec.Packet()
	out.Src = p.source.Addr()
	if out.ICMP != nil {
		out.ICMP.ID = p.icmpID
	} else {
		out.SPort = p.source.Port()
	}
	return out
}

// Packet is the packet that such a probe sends, without what its socket adds:
// the first of the ports that probes have stands for the real one.
func (s Spec) Packet() datapath.Packet {
	out := datapath.Packet{
		Dst: s.To.Addr(), Proto: string(s.Protocol), TTL: s.TTL, DF: s.Fragment != FragmentAllowed,
		Length: ipHeader + icmpHeader + s.payload(), // UDP's header has as many bytes (RFC 768)
	}
	switch s.Protocol {
	case ProbeICMP:
		out.ICMP = &datapath.ICMPInfo{Type: layers.ICMPv4TypeEchoRequest, ID: 1, Seq: 1}
		return out
	case ProbeTCP:
		out.Length, out.Flags = ipHeader+synHeader, "SYN"
	case ProbeSCTP:
		out.Length = ipHeader + initChunk
	}
	out.SPort, out.DPort = somePort, s.To.Port()
	return out
}

// MaxPayload is the largest payload of a probe, in bytes: an IPv4 packet has at
// most 65535 (RFC 791 §3.1).
const MaxPayload = 65535 - ipHeader - icmpHeader

func (s Spec) payload() int { return max(s.Size, markerLen) }

func (p *Probe) open() (int, error) {
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	switch p.Protocol {
	case ProbeTCP:
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|flags, 0)
	case ProbeUDP:
		return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|flags, 0)
	case ProbeICMP:
		return unix.Socket(unix.AF_INET, unix.SOCK_RAW|flags, unix.IPPROTO_ICMP)
	case ProbeSCTP:
		return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|flags, unix.IPPROTO_SCTP)
	default:
		return -1, fmt.Errorf("unknown protocol %q", p.Protocol)
	}
}

// settle fixes port or identifier and options.
func (p *Probe) settle() error {
	if p.spec.Size != 0 && p.spec.Size < markerLen {
		return fmt.Errorf("a payload of %d bytes has no room for the marker of %d", p.spec.Size, markerLen)
	}
	if p.spec.TTL > 0 {
		if err := unix.SetsockoptInt(p.fd, unix.IPPROTO_IP, unix.IP_TTL, int(p.spec.TTL)); err != nil {
			return fmt.Errorf("set TTL: %w", err)
		}
	}
	if mode, set := map[Fragmentation]int{FragmentNever: unix.IP_PMTUDISC_PROBE, FragmentAllowed: unix.IP_PMTUDISC_DONT}[p.spec.Fragment]; set {
		if err := unix.SetsockoptInt(p.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode); err != nil {
			return fmt.Errorf("set don't-fragment: %w", err)
		}
	}
	if p.Protocol == ProbeICMP {
		var id [2]byte
		_, _ = rand.Read(id[:])
		p.icmpID = binary.BigEndian.Uint16(id[:]) | 1 // zero stands for any
		return nil
	}
	if err := bindFresh(p.fd); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return p.readSource()
}

// Source ports of probes are above those that kernels choose for others
// (net.ipv4.ip_local_port_range's default ends at 60999), and one is used again
// only after minutes: connection tracking still knows whoever had a port last,
// for two minutes if nobody answered (nf_conntrack_tcp_timeout_syn_sent), and
// would treat the probe as part of that connection or give it another port.
const (
	firstFresh = 61000
	freshPorts = 65535 - firstFresh
	freshEvery = 50 * time.Millisecond
)

// lastFresh is the turn of this program's last probe.
var lastFresh atomic.Int64

// freshPort is the port whose turn it is; no two calls have the same.
func freshPort(now time.Time) int {
	for {
		last := lastFresh.Load()
		turn := max(now.UnixMilli()/freshEvery.Milliseconds(), last+1)
		if lastFresh.CompareAndSwap(last, turn) {
			return firstFresh + int(turn%freshPorts)
		}
	}
}

// bindFresh binds a socket to the port whose turn it is, or to one after it
// where that is taken.
func bindFresh(fd int) error {
	const tries = 16
	for range tries {
		err := unix.Bind(fd, &unix.SockaddrInet4{Port: freshPort(time.Now())})
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return unix.Bind(fd, &unix.SockaddrInet4{}) // the kernel's choice, then
}

func (p *Probe) readSource() error {
	name, err := unix.Getsockname(p.fd)
	if err != nil {
		return fmt.Errorf("read own address: %w", err)
	}
	own, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return fmt.Errorf("unexpected own address %T", name)
	}
	a := netip.AddrFrom4(own.Addr)
	if a.IsUnspecified() {
		a = netip.Addr{}
	}
	p.source = netip.AddrPortFrom(a, uint16(own.Port))
	return nil
}

func (p *Probe) send() error {
	to := p.spec.To
	err := unix.Connect(p.fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	if p.Protocol == ProbeTCP || p.Protocol == ProbeSCTP {
		if err := p.readSource(); err != nil {
			return err
		}
		p.Match.Client, p.Match.Server = p.source, to
		return nil
	}
	p.Match.Marker = newMarker()
	payload := append(make([]byte, 0, p.spec.payload()), p.Match.Marker...)
	payload = payload[:p.spec.payload()]
	if p.Protocol == ProbeICMP {
		if payload, err = echoRequest(p.icmpID, payload); err != nil {
			return err
		}
	}
	if _, err := unix.Write(p.fd, payload); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

const markerPrefix = "slipway-probe-"

// markerLen is the length of a marker: the prefix and 16 hex digits.
const markerLen = len(markerPrefix) + 16

// newMarker makes a payload that no other packet has, and that reads well in a dump.
func newMarker() []byte {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails (Go 1.24)
	return []byte(markerPrefix + hex.EncodeToString(b[:]))
}

func echoRequest(id uint16, payload []byte) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: 1}
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, echo, gopacket.Payload(payload))
	if err != nil {
		return nil, fmt.Errorf("build echo request: %w", err)
	}
	return buf.Bytes(), nil
}
