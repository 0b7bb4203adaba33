package load

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// DefaultWrite is what a stream hands to the kernel at once, in bytes: what
// iperf3 uses for TCP (its -l), so that figures can be compared.
const DefaultWrite = 128 << 10

// Bounds of a job: a measurement is short, and holds a part of one machine.
const (
	maxDuration = 10 * time.Minute
	maxStreams  = 1024
	maxWrite    = 16 << 20
	maxMessage  = 16 << 20
	maxBuffer   = 64 << 20
	maxDatagram = 65535 - ipHeader - udpHeader
)

// Headers of a datagram, in bytes, without options (RFC 791 §3.1, RFC 768).
const (
	ipHeader  = 20
	udpHeader = 8
)

// smallestPayload is what a UDP datagram holds in the smallest Ethernet frame:
// 64 bytes with its header of 14 and check sequence of 4 (IEEE 802.3 §4.4.2).
const smallestPayload = 64 - 14 - 4 - ipHeader - udpHeader

// Sizes that a job without one gets, in bytes of payload.
var defaultSize = map[string]int{
	UDPPackets:  smallestPayload,
	TCPRequests: 1, // as netperf's TCP_RR
	TCPConnects: 1,
	UDPRequests: stampSize,
	HTTP:        1024,
}

// prepared fills in what the job leaves open and refuses what cannot be run.
func (j Job) prepared() (Job, error) {
	if j.Streams == 0 {
		j.Streams = 1
	}
	if j.Write == 0 {
		j.Write = DefaultWrite
	}
	if j.Size == 0 {
		j.Size = defaultSize[j.Workload]
	}
	return j, errors.Join(j.checkBounds(), j.checkWorkload(), j.checkPlaces())
}

func (j Job) checkBounds() error {
	switch {
	case j.Duration <= 0 || j.Duration > maxDuration || j.WarmUp < 0 || j.WarmUp > maxDuration:
		return fmt.Errorf("cannot measure for %v after %v: at most %v", j.Duration, j.WarmUp, maxDuration)
	case j.Streams < 0 || j.Streams > maxStreams:
		return fmt.Errorf("cannot run %d streams: at most %d", j.Streams, maxStreams)
	case j.Write < 0 || j.Write > maxWrite:
		return fmt.Errorf("cannot write %d bytes at once: at most %d", j.Write, maxWrite)
	case j.Buffer < 0 || j.Buffer > maxBuffer:
		return fmt.Errorf("cannot have buffers of %d bytes: at most %d", j.Buffer, maxBuffer)
	case j.Size < 0 || j.Size > maxMessage:
		return fmt.Errorf("cannot send messages of %d bytes: at most %d", j.Size, maxMessage)
	case j.Rate < 0:
		return fmt.Errorf("cannot offer %v a second", j.Rate)
	}
	return nil
}

func (j Job) checkWorkload() error {
	switch j.Workload {
	case UDPStream, UDPPackets, UDPRequests:
		if j.Size != 0 && (j.Size < stampSize || j.Size > maxDatagram) {
			return fmt.Errorf("a datagram of %d bytes: it holds %d to %d", j.Size, stampSize, maxDatagram)
		}
	}
	switch j.Workload {
	case TCPStream, UDPStream, UDPPackets:
		if j.Served {
			return errors.New("a stream needs its own server")
		}
	}
	switch j.Workload {
	case UDPStream, UDPPackets:
		if j.Streams > 1 {
			return errors.New("datagrams go in one stream")
		}
	}
	switch j.Workload {
	case TCPStream, UDPPackets, TCPConnects, HTTP, Idle:
		if j.Rate > 0 {
			return fmt.Errorf("%s cannot be offered at a rate", j.Workload)
		}
	}
	return nil
}

func (j Job) checkPlaces() error {
	if j.Workload == Idle {
		return nil
	}
	switch {
	case j.Client.NS == nil || j.Server.NS == nil:
		return errors.New("the job has no client or no server")
	case j.Client.Addr.IsValid() && !j.Client.Addr.Is4(), !j.Server.Addr.Is4(), j.To.IsValid() && !j.To.Addr().Is4():
		return errors.New("only IPv4 addresses can be measured")
	case j.Port == 0 && (j.To.IsValid() || j.Served || j.Far):
		return errors.New("the server's port is not given")
	}
	return nil
}

// alone reports whether only the client's end is run here.
func (j Job) alone() bool { return j.Served || j.Far }

// target is where the client connects when the server listens at a port.
func (j Job) target(port uint16) netip.AddrPort {
	if j.To.IsValid() {
		return j.To
	}
	return netip.AddrPortFrom(j.Server.Addr, port)
}

// window is when traffic runs and when it counts.
type window struct{ start, from, until time.Time }

// open lets the window of a job begin now.
func (j Job) open() window { return j.openAt(time.Now()) }

// openAt lets the window of a job begin at a time.
func (j Job) openAt(start time.Time) window {
	return window{start, start.Add(j.WarmUp), start.Add(j.WarmUp + j.Duration)}
}

// most is how long a job may take in all.
func (j Job) most() time.Duration { return connectTimeout + j.WarmUp + j.Duration + 2*drainTimeout }

// counts reports whether a time lies in the part of the window that counts.
func (w window) counts(t time.Time) bool { return !t.Before(w.from) && t.Before(w.until) }
