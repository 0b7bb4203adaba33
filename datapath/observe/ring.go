package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is the memory that a packet socket shares with the kernel (TPACKET_V3,
// Documentation/networking/packet_mmap.rst). It is used for its time stamps: the
// kernel writes one when the packet passes. A socket that is read by recvmsg
// asks for stamps as well, but the kernel grants that later, in its own time
// (net_enable_timestamp), and until then stamps packets when they are read.
type ring struct {
	fd     int
	size   ringSize
	memory []byte
	next   int // the block to read next
}

// A ring has a few blocks, each of which goes to the reader when it is full or
// a few milliseconds after its first packet.
const (
	blockBytes  = 256 << 10
	blocks      = 8
	retireAfter = 4 * time.Millisecond
	// frameBytes only has to divide blockBytes: version 3 packs packets densely.
	frameBytes = 2 << 10
)

// ringSize says how much a ring holds and how soon it hands that over.
type ringSize struct {
	blockBytes, blocks int
	retire             time.Duration
}

// settle is how long after it passed a packet may still be out of a reader's
// sight: the time in which a block retires, and a timer's slack.
func (s ringSize) settle() time.Duration { return 4 * s.retire }

// newRing gives a socket that is not bound yet its ring.
func newRing(fd int, size ringSize) (*ring, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("set packet socket to version 3: %w", err)
	}
	req := &unix.TpacketReq3{
		Block_size: uint32(size.blockBytes), Block_nr: uint32(size.blocks),
		Frame_size: frameBytes, Frame_nr: uint32(size.blockBytes / frameBytes * size.blocks),
		Retire_blk_tov: uint32(size.retire / time.Millisecond),
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, req); err != nil {
		return nil, fmt.Errorf("allocate packet ring: %w", err)
	}
	memory, err := unix.Mmap(fd, 0, size.blockBytes*size.blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map packet ring: %w", err)
	}
	return &ring{fd: fd, size: size, memory: memory}, nil
}

func (r *ring) close() error { return errors.Join(unix.Munmap(r.memory), unix.Close(r.fd)) }

// frame is one packet in the ring, valid until the block is given back.
type frame struct {
	time    time.Time
	length  int // bytes on the wire
	status  uint32
	ifindex int
	hatype  uint16
	pkttype uint8
	data    []byte
}

// Offsets in struct tpacket_block_desc and struct tpacket3_hdr
// (include/uapi/linux/if_packet.h), and of the struct sockaddr_ll behind the
// latter, at the next multiple of TPACKET_ALIGNMENT (16).
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16
	sockaddrAt   = 48
)

// read hands every packet of the next block to take; false if no block is ready.
func (r *ring) read(take func(frame)) bool {
	block := r.memory[r.next*r.size.blockBytes : (r.next+1)*r.size.blockBytes]
	status := (*uint32)(unsafe.Pointer(&block[blockStatus])) // aligned: blocks begin at pages
	if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
		return false
	}
	order := binary.NativeEndian
	at := order.Uint32(block[blockFirst:])
	for range order.Uint32(block[blockPackets:]) {
		packet := block[at:]
		begin, captured := uint32(order.Uint16(packet[24:])), order.Uint32(packet[12:])
		from := packet[sockaddrAt:]
		take(frame{
			time:    time.Unix(int64(order.Uint32(packet[4:])), int64(order.Uint32(packet[8:]))),
			length:  int(order.Uint32(packet[16:])),
			status:  order.Uint32(packet[20:]),
			ifindex: int(order.Uint32(from[4:])), hatype: order.Uint16(from[8:]), pkttype: from[10],
			data: packet[begin : begin+captured],
		})
		at += order.Uint32(packet)
	}
	atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % r.size.blocks
	return true
}

// dropped is how many packets had no room since it was last asked.
func (r *ring) dropped() (int, error) {
	st, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	return int(st.Drops), nil
}
