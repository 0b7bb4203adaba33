package load

import (
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The metrics.
const (
	Throughput    = "throughput"     // bit/s of payload, as received
	Offered       = "offered"        // bit/s of payload, as sent (udp-stream)
	Fairness      = "fairness"       // Jain's index of the streams' throughputs: 1 is equal, 1/n is one alone
	Slowest       = "slowest"        // bit/s of the slowest of several streams
	Retransmits   = "retransmits"    // segments sent again
	MSS           = "mss"            // bytes of payload in a segment (tcpi_snd_mss)
	Window        = "window"         // bytes that the receiver lets be under way at most (tcpi_snd_wnd)
	PathMTU       = "path-mtu"       // bytes of IP packet (tcpi_pmtu, IP_MTU)
	PacketsSent   = "packets-sent"   // datagrams per second that the kernel took
	PacketRate    = "packets"        // datagrams per second that arrived
	Loss          = "loss"           // share of what was sent that never arrived
	ReceiverDrops = "receiver-drops" // datagrams that found the receiver's socket full: part of the loss
	Reordered     = "reordered"      // share of what arrived after a later one (RFC 4737 §3.3)
	Duplicates    = "duplicates"     // datagrams that arrived twice
	Jitter        = "jitter"         // s, interarrival jitter (RFC 3550 §6.4.1)
	Rate          = "rate"           // answered requests per second
	P50           = "p50"            // s, latency
	P90           = "p90"
	P99           = "p99"
	P999          = "p99.9"
	Max           = "max"
	ConnectP50    = "connect-p50" // s, latency of connecting alone (tcp-crr)
	ConnectP99    = "connect-p99"
	SendLagP99    = "send-lag-p99" // s, how late the generator itself sent (open loop): part of the latency
	Unanswered    = "unanswered"   // requests without an answer at the end; in the latencies with what they had waited
)

// Meaning says how a metric is read.
type Meaning struct {
	Unit   string
	Better string // higher | lower | "": says nothing by itself
}

var meanings = map[string]Meaning{
	Throughput: {"bit/s", "higher"}, Offered: {"bit/s", ""}, Fairness: {"", "higher"}, Slowest: {"bit/s", "higher"},
	Retransmits: {"", "lower"}, MSS: {"bytes", ""}, Window: {"B", ""}, PathMTU: {"bytes", ""},
	PacketsSent: {"1/s", ""}, PacketRate: {"1/s", "higher"}, Loss: {"", "lower"}, ReceiverDrops: {"", "lower"},
	Reordered: {"", "lower"}, Duplicates: {"", "lower"}, Jitter: {"s", "lower"},
	Rate: {"1/s", "higher"}, P50: {"s", "lower"}, P90: {"s", "lower"}, P99: {"s", "lower"}, P999: {"s", "lower"}, Max: {"s", "lower"},
	ConnectP50: {"s", "lower"}, ConnectP99: {"s", "lower"}, SendLagP99: {"s", ""}, Unanswered: {"", "lower"},
	CPU: {"s", "lower"}, SoftIRQ: {"s", "lower"}, ContextSwitches: {"", "lower"}, DaemonCPU: {"s", "lower"},
	CPUPerGB: {"s/GB", "lower"}, SoftIRQPerGB: {"s/GB", "lower"}, DaemonCPUPerGB: {"s/GB", "lower"}, SwitchesPerGB: {"1/GB", "lower"},
	CPUPerRequest: {"s", "lower"}, SoftIRQPerRequest: {"s", "lower"}, DaemonCPUPerRequest: {"s", "lower"}, SwitchesPerRequest: {"", "lower"},
	ConntrackEntries: {"", ""}, DeviceDrops: {"", "lower"}, Dropped: {"", "lower"},
}

// Means says how a metric that this package gives is read.
func Means(metric string) (Meaning, bool) {
	if strings.HasPrefix(metric, DroppedBy) {
		metric = Dropped
	}
	m, ok := meanings[metric]
	return m, ok
}

// The range and precision of latency histograms, in nanoseconds, to three
// significant digits. What takes longer counts as the longest.
const (
	latencyMin    = 1
	latencyMax    = int64(60 * time.Second)
	latencyDigits = 3
)

// latencies are the durations of requests.
type latencies struct{ h *hdrhistogram.Histogram }

func newLatencies() latencies {
	return latencies{hdrhistogram.New(latencyMin, latencyMax, latencyDigits)}
}

func (l latencies) record(d time.Duration) {
	_ = l.h.RecordValue(min(max(d.Nanoseconds(), latencyMin), latencyMax)) // inside its range
}

func (l latencies) quantile(q float64) float64 {
	return time.Duration(l.h.ValueAtQuantile(q)).Seconds()
}

func (l latencies) count() int64 { return l.h.TotalCount() }

// into adds the quantiles to figures.
func (l latencies) into(f Figures) {
	f[P50], f[P90], f[P99], f[P999] = l.quantile(50), l.quantile(90), l.quantile(99), l.quantile(99.9)
	f[Max] = time.Duration(l.h.Max()).Seconds()
}
