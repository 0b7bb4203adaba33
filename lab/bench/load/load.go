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

// Job is one measurement.
type Job struct {
	Workload string // tcp-stream | udp-stream | udp-pps | tcp-rr | udp-rr | tcp-crr | http
	Client   Place
	Server   Place
	// To is where the client connects, if not to the server's own address and
	// port: a ClusterIP or NodePort that leads there. Port is the server's; zero
	// lets the kernel choose.
	To       netip.AddrPort
	Port     uint16
	Duration time.Duration
	WarmUp   time.Duration // traffic before, which is not counted
	Streams  int           // parallel connections; 0 is 1
	Write    int           // bytes handed to the kernel at once (streams)
	Size     int           // bytes of payload of a datagram, request or answer
	Rate     float64       // offered: bit/s (udp-stream) or requests/s (open loop); 0: as fast as it goes (closed loop)
}

// Figures are what one measurement gave, by metric name, in base units (bit/s,
// 1/s, seconds, counts). Metrics that the workload does not have are absent.
type Figures map[string]float64

// Runner runs jobs.
type Runner interface {
	Run(ctx context.Context, j Job) (Figures, error)
}
