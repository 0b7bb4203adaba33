package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
)

// Place is a namespace to listen in.
type Place struct {
	Label string // how it is shown: "node01", "default/client", "fabric"
	Node  string // the node that it belongs to; may be empty
	Wire  bool   // it only switches frames: the fabric of the underlay
	NS    *netns.NS
}

// Direction is a packet's way through a device, as the namespace sees it.
type Direction string

// The directions.
const (
	In  Direction = "in"
	Out Direction = "out"
)

// Event is one sighting of a packet at a device.
type Event struct {
	Time       time.Time // nanoseconds; comparable over all places of one machine
	Place      Place
	Device     string
	Direction  Direction
	OtherHost  bool // the frame's destination is not the device's own MAC
	LinkType   LinkType
	Data       []byte
	WireLength int // bytes; more than Data where the snap length cut it
	// PartialChecksum is set where the transport checksum was left to the
	// device (TP_STATUS_CSUMNOTREADY); it is wrong in Data and no error.
	PartialChecksum bool
	Packet          Decoded

	queue, arrival int // which socket, and in which turn: for sorting
}

// Options of a capture; the zero value takes everything.
type Options struct {
	// Ports are the tunnels' ports; zero fields stand for DefaultPorts.
	Ports Ports
	// Filter, if set, is run by the kernel on each packet. On devices without
	// a frame header it sees the packet from its IP header on.
	Filter []bpf.RawInstruction
}

// Capture listens in a set of namespaces. It is not safe for concurrent use.
type Capture struct {
	ports   Ports
	queues  []*queue
	buffer  []byte
	control []byte
	dropped int
}

// queue is the socket of one place.
type queue struct {
	place   Place
	fd      int
	names   map[int]string // ifindex → device
	arrival int
}

// bufferBytes is what each socket may hold until it is read. It is only used as
// packets come, and lasts for thousands of small ones.
const bufferBytes = 4 << 20

// snapBytes is the most that is kept of one packet: a whole one, unless the
// device does BIG TCP.
const snapBytes = 64<<10 + 64

// Open starts to listen in every place: what passes any device there from now
// on is kept by the kernel until Collect reads it.
func Open(places []Place, opts Options) (*Capture, error) {
	c := &Capture{ports: opts.Ports, buffer: make([]byte, snapBytes), control: make([]byte, 256)}
	if c.ports.UDP == 0 {
		c.ports.UDP = DefaultPorts.UDP
	}
	if c.ports.VXLAN == 0 {
		c.ports.VXLAN = DefaultPorts.VXLAN
	}
	for _, p := range places {
		fd, err := openSocket(p.NS, opts.Filter)
		if err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("capture in %s: %w", p.Label, err)
		}
		c.queues = append(c.queues, &queue{place: p, fd: fd, names: map[int]string{}})
	}
	return c, nil
}

// Close stops listening. Events stay valid.
func (c *Capture) Close() error {
	var errs []error
	for _, q := range c.queues {
		errs = append(errs, unix.Close(q.fd))
	}
	c.queues = nil
	return errors.Join(errs...)
}

// openSocket opens a socket that hears all devices of a namespace. It listens
// only once it is bound, so that nothing comes in before the filter is set.
func openSocket(ns *netns.NS, filter []bpf.RawInstruction) (int, error) {
	fd := -1
	err := ns.Do(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	if err := setUp(fd, filter); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func setUp(fd int, filter []bpf.RawInstruction) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes); err != nil {
		return fmt.Errorf("set receive buffer: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("ask for timestamps: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return fmt.Errorf("ask for auxiliary data: %w", err)
	}
	if len(filter) > 0 {
		prog := make([]unix.SockFilter, len(filter))
		for i, in := range filter {
			prog[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
		}
		fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, fprog); err != nil {
			return fmt.Errorf("attach filter: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

func bigEndian(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// read takes one packet from the socket; nil if there is none.
func (c *Capture) read(i int) (*Event, error) {
	q := c.queues[i]
	n, oobn, _, from, err := unix.Recvmsg(q.fd, c.buffer, c.control, unix.MSG_TRUNC)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) { // ENETDOWN: a device went down; the next read goes on
		n, oobn, _, from, err = unix.Recvmsg(q.fd, c.buffer, c.control, unix.MSG_TRUNC)
	}
	if errors.Is(err, unix.EAGAIN) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("capture in %s: receive: %w", q.place.Label, err)
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	if !ok {
		return nil, fmt.Errorf("capture in %s: unexpected sender %T", q.place.Label, from)
	}
	q.arrival++
	e := &Event{
		Place: q.place, Device: q.name(link.Ifindex), Direction: In, OtherHost: link.Pkttype == unix.PACKET_OTHERHOST,
		LinkType: linkType(link.Hatype), Data: append([]byte(nil), c.buffer[:min(n, len(c.buffer))]...),
		WireLength: n, queue: i, arrival: q.arrival,
	}
	if link.Pkttype == unix.PACKET_OUTGOING {
		e.Direction = Out
	}
	if err := e.auxiliary(c.control[:oobn]); err != nil {
		return nil, fmt.Errorf("capture in %s: %w", q.place.Label, err)
	}
	e.Packet = Decode(e.LinkType, e.Data, c.ports)
	return e, nil
}

// linkType maps a device's hardware type. ARPHRD_LOOPBACK has a frame header
// like Ethernet's; TUN devices are ARPHRD_NONE, and tunl0 ARPHRD_TUNNEL.
func linkType(hatype uint16) LinkType {
	switch hatype {
	case unix.ARPHRD_NONE, unix.ARPHRD_TUNNEL, unix.ARPHRD_IPGRE, unix.ARPHRD_PPP, unix.ARPHRD_RAWIP:
		return LinkRaw
	default:
		return LinkEthernet
	}
}

// auxiliary reads the control messages: time stamp and packet status.
func (e *Event) auxiliary(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return fmt.Errorf("parse control messages: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			// struct timespec of a 64-bit kernel
			sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			e.Time = time.Unix(int64(sec), int64(nsec))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4:
			// struct tpacket_auxdata begins with tp_status
			e.PartialChecksum = binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
		}
	}
	return nil
}

// name asks the kernel, through the socket and so in its namespace, what a
// device is called. A device that is gone already is shown by its number.
func (q *queue) name(index int) string {
	if name, ok := q.names[index]; ok {
		return name
	}
	name := fmt.Sprintf("if%d", index)
	if req, err := unix.NewIfreq(""); err == nil {
		req.SetUint32(uint32(index))
		if err := unix.IoctlIfreq(q.fd, unix.SIOCGIFNAME, req); err == nil {
			name = req.Name()
		}
	}
	q.names[index] = name
	return name
}

// countDropped adds what the sockets had no room for. Reading the statistics
// resets them.
func (c *Capture) countDropped() error {
	for _, q := range c.queues {
		st, err := unix.GetsockoptTpacketStats(q.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return fmt.Errorf("capture in %s: read statistics: %w", q.place.Label, err)
		}
		c.dropped += int(st.Drops)
	}
	return nil
}

// Dropped is how many packets the kernel had no room for up to the last
// Collect. Unless it is zero, a path may lack steps.
func (c *Capture) Dropped() int { return c.dropped }
