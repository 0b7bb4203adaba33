// Package load makes traffic between two places of a lab and measures it: the
// bench's own generator. Its sockets are opened inside the namespaces of its
// ends and driven from this process, so that nothing has to be installed there.
package load

import (
	"context"
	"net/netip"
	"time"

	"slipway/internal/netns"
)

// Place is one end of a measurement.
type Place struct {
	NS    *netns.NS
	Addr  netip.Addr // its own address
	Label string     // "default/client"
}

// The workloads.
const (
	TCPStream   = "tcp-stream" // bytes one way, as fast as they go
	UDPStream   = "udp-stream" // datagrams at a rate, or as fast as they go
	UDPPackets  = "udp-pps"    // small datagrams as fast as they go
	TCPRequests = "tcp-rr"     // requests and answers over a standing connection
	UDPRequests = "udp-rr"     // requests and answers in datagrams
	TCPConnects = "tcp-crr"    // connect, request, answer, close
	HTTP        = "http"       // GET over a standing connection
	Idle        = "idle"       // nothing: what the lab costs by itself
)

// Job is one measurement.
type Job struct {
	Workload string
	Client   Place
	Server   Place
	// To is where the client connects, if not to the server's own address and
	// port: a ClusterIP or NodePort that leads there. Port is the server's; zero
	// lets the kernel choose.
	To   netip.AddrPort
	Port uint16
	// Served: at the server's port somebody answers already, such as the lab's
	// own echo servers, and only the client is run. For requests, not streams.
	Served bool
	// Far: the server's end is run by a [Server] of ours elsewhere, and this is the
	// client's; set by [Ask]. Run then marks the datagrams, which the server has to
	// know.
	Far      bool
	Run      uint16
	Duration time.Duration
	WarmUp   time.Duration // traffic before, which is not counted
	Streams  int           // parallel connections; 0 is 1
	// Buffer is what a stream's receiver asks for as its buffer, in bytes, and half
	// of what the sender does. The kernel doubles both (socket(7)) and offers most
	// of the receiver's as its window, which is in the figures. 0: as the kernel likes.
	Buffer int
	Write  int // bytes handed to the kernel at once (tcp-stream); 0 is DefaultWrite
	// Size is the bytes of payload of a datagram, request or answer. 0 is 1 byte
	// for TCP requests, 16 for UDP ones, 1024 for an HTTP body, the smallest
	// Ethernet frame for udp-pps, and what the path's MTU holds for udp-stream.
	Size int
	Rate float64 // offered: bit/s (udp-stream) or requests/s of all streams (open loop of tcp-rr, udp-rr); 0: as fast as it goes (closed loop)
}

// Figures are what one measurement gave, by metric name, in base units (bit/s,
// 1/s, seconds, counts). Metrics that the workload does not have are absent.
type Figures map[string]float64

// Runner runs jobs.
type Runner interface {
	Run(ctx context.Context, j Job) (Figures, error)
}
