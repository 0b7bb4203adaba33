package observe

import (
	"bytes"
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
	// Comments go with the packet into a pcapng file.
	Comments []string

	queue int // which socket: its own events are in order
}

// Options of a capture; the zero value takes everything.
type Options struct {
	// Ports are the tunnels' ports; zero fields stand for DefaultPorts.
	Ports Ports
	// Filter, if set, is run by the kernel on each packet. On devices without
	// a frame header it sees the packet from its IP header on.
	Filter []bpf.RawInstruction
	// FilterOf, if set, gives each place a filter of its own instead.
	FilterOf func(Place) []bpf.RawInstruction
	// RingBytes is what each place's ring may hold until it is read, for a
	// capture of more than one packet's way; see [Capture.Stream].
	RingBytes int
	// Raw leaves Packet of all events empty: packets are not taken apart.
	Raw bool
}

// ringSize is the size of the rings that the options ask for.
func (o Options) ringSize() ringSize {
	if o.RingBytes == 0 {
		return ringSize{blockBytes: blockBytes, blocks: blocks, retire: retireAfter}
	}
	return ringSize{blockBytes: streamBlockBytes, blocks: max(minStreamBlocks, o.RingBytes/streamBlockBytes), retire: streamRetireAfter}
}

// filterOf is the filter of a place.
func (o Options) filterOf(p Place) []bpf.RawInstruction {
	if o.FilterOf != nil {
		return o.FilterOf(p)
	}
	return o.Filter
}

// Capture listens in a set of namespaces. It is not safe for concurrent use.
type Capture struct {
	ports   Ports
	raw     bool
	size    ringSize
	queues  []*queue
	dropped int
}

// queue is the socket of one place.
type queue struct {
	place   Place
	ring    *ring
	names   map[int]string // ifindex → device
	dropped int            // packets that the ring had no room for
}

// Open starts to listen in every place: what passes any device there from now
// on is kept by the kernel until Collect reads it. The ring of a place is for one
// packet's way, not for minutes: it has a few blocks, and each takes what comes
// within a few milliseconds. Whoever listens longer calls Collect meanwhile.
func Open(places []Place, opts Options) (*Capture, error) {
	c := &Capture{ports: opts.Ports, raw: opts.Raw, size: opts.ringSize()}
	if c.ports.UDP == 0 {
		c.ports.UDP = DefaultPorts.UDP
	}
	if c.ports.VXLAN == 0 {
		c.ports.VXLAN = DefaultPorts.VXLAN
	}
	for _, p := range places {
		r, err := openSocket(p.NS, opts.filterOf(p), c.size)
		if err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("capture in %s: %w", p.Label, err)
		}
		c.queues = append(c.queues, &queue{place: p, ring: r, names: map[int]string{}})
	}
	return c, nil
}

// Close stops listening. Events stay valid.
func (c *Capture) Close() error {
	var errs []error
	for _, q := range c.queues {
		errs = append(errs, q.ring.close())
	}
	c.queues = nil
	return errors.Join(errs...)
}

// openSocket opens a socket that hears all devices of a namespace. It listens
// only once it is bound, so that nothing comes in before the filter is set.
func openSocket(ns *netns.NS, filter []bpf.RawInstruction, size ringSize) (*ring, error) {
	fd := -1
	err := ns.Do(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	r, err := newRing(fd, size)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if err := attach(fd, filter); err != nil {
		_ = r.close()
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}); err != nil {
		_ = r.close()
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	return r, nil
}

// attach sets the filter of a socket, if there is one.
func attach(fd int, filter []bpf.RawInstruction) error {
	if len(filter) == 0 {
		return nil
	}
	prog := make([]unix.SockFilter, len(filter))
	for i, in := range filter {
		prog[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, fprog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

func bigEndian(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// event makes an event of a frame, whose memory goes back to the kernel.
func (c *Capture) event(i int, f frame) Event {
	q := c.queues[i]
	e := Event{
		Time: f.time, Place: q.place, Device: q.name(f.ifindex), Direction: In, OtherHost: f.pkttype == unix.PACKET_OTHERHOST,
		LinkType: linkType(f.hatype), Data: bytes.Clone(f.data), WireLength: f.length,
		PartialChecksum: f.status&unix.TP_STATUS_CSUMNOTREADY != 0,
		queue:           i,
	}
	if f.pkttype == unix.PACKET_OUTGOING {
		e.Direction = Out
	}
	if !c.raw {
		e.Packet = Decode(e.LinkType, e.Data, c.ports)
	}
	return e
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

// name asks the kernel, through the socket and so in its namespace, what a
// device is called. A device that is gone already is shown by its number.
func (q *queue) name(index int) string {
	if name, ok := q.names[index]; ok {
		return name
	}
	name := fmt.Sprintf("if%d", index)
	if req, err := unix.NewIfreq(""); err == nil {
		req.SetUint32(uint32(index))
		if err := unix.IoctlIfreq(q.ring.fd, unix.SIOCGIFNAME, req); err == nil {
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
		n, err := q.ring.dropped()
		if err != nil {
			return fmt.Errorf("capture in %s: %w", q.place.Label, err)
		}
		q.dropped += n
		c.dropped += n
	}
	return nil
}

// Dropped is how many packets the kernel had no room for up to the last
// Collect. Unless it is zero, a path may lack steps.
func (c *Capture) Dropped() int { return c.dropped }
