package remote

import (
	"net/netip"
	"time"

	"slipway/datapath"
	"slipway/datapath/observe"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
)

// order is a line to an agent that observes: one thing to do. It is answered by a
// report with its number, or, where that is zero, not at all.
type order struct {
	ID      int          `json:"id,omitempty"`
	Open    *openOrder   `json:"open,omitempty"`
	Prepare *sendOrder   `json:"prepare,omitempty"`
	Follow  *followOrder `json:"follow,omitempty"`
	Fire    *fireOrder   `json:"fire,omitempty"`
	Clock   bool         `json:"clock,omitempty"`
	Settle  *settleOrder `json:"settle,omitempty"`
}

// openOrder attaches observers.
type openOrder struct {
	Observer string         `json:"observer"` // ByBPF, …; empty for the best that there is
	Watched  []uint64       `json:"watched"`  // namespaces, by inode
	Rules    []uint64       `json:"rules,omitempty"`
	Ports    datapath.Ports `json:"ports"`
	Packets  bool           `json:"packets,omitempty"` // listen on devices, too
}

// sendOrder prepares a probe in a namespace.
type sendOrder struct {
	Space uint64       `json:"space"`
	Spec  observe.Spec `json:"spec"`
}

// followOrder says what packets are wanted.
type followOrder struct {
	Packets []flow `json:"packets"`
	Rules   []flow `json:"rules,omitempty"`
}

// flow is a datapath.Flow: of an address and a port, netip's text has none where
// the address is any.
type flow struct {
	Proto  string     `json:"proto,omitempty"`
	Src    netip.Addr `json:"src,omitzero"`
	SPort  uint16     `json:"sport,omitempty"`
	Dst    netip.Addr `json:"dst,omitzero"`
	DPort  uint16     `json:"dport,omitempty"`
	ICMPID uint16     `json:"icmpId,omitempty"`
}

func flowsOf(list []datapath.Flow) []flow {
	out := make([]flow, 0, len(list))
	for _, f := range list {
		out = append(out, flow{f.Proto, f.Src.Addr(), f.Src.Port(), f.Dst.Addr(), f.Dst.Port(), f.ICMPID})
	}
	return out
}

func (f flow) flow() datapath.Flow {
	return datapath.Flow{Proto: f.Proto, Src: netip.AddrPortFrom(f.Src, f.SPort), Dst: netip.AddrPortFrom(f.Dst, f.DPort), ICMPID: f.ICMPID}
}

// fireOrder sends the probe. Its answer comes as two reports: when it was sent,
// and when there is an answer or none came.
type fireOrder struct {
	Timeout time.Duration `json:"timeoutNs"`
}

// settleOrder waits until no event came for a time, and asks for the rest.
type settleOrder struct {
	Quiet time.Duration `json:"quietNs"`
	Match observe.Match `json:"match,omitzero"`
}

// report is a line of an agent that observes: an answer, or events as they come.
type report struct {
	ID       int              `json:"id,omitempty"`
	Error    string           `json:"error,omitempty"`
	Missing  bool             `json:"missing,omitempty"` // the error is of what the kernel has not
	Opened   *opened          `json:"opened,omitempty"`
	Prepared *datapath.Packet `json:"prepared,omitempty"`
	Fired    *observe.Match   `json:"fired,omitempty"`
	Answer   *answer          `json:"answer,omitempty"`
	MonoNs   int64            `json:"monoNs,omitempty"` // CLOCK_MONOTONIC
	WallNs   int64            `json:"wallNs,omitempty"`
	Settled  *settled         `json:"settled,omitempty"`
	Events   []skbtrace.Event `json:"events,omitempty"`
}

// opened is what observes, and what does not, and why.
type opened struct {
	Observer string   `json:"observer"`
	Rules    bool     `json:"rules"`
	Notes    []string `json:"notes,omitempty"`
}

// answer is what the sender got.
type answer struct {
	Took  time.Duration `json:"tookNs,omitempty"`
	Errno int           `json:"errno,omitempty"`
	Error string        `json:"error,omitempty"`
	None  bool          `json:"none,omitempty"` // nothing came in time
}

// settled is what had not been told before.
type settled struct {
	Lost      int             `json:"lost,omitempty"`
	RulesLost int             `json:"rulesLost,omitempty"`
	Hits      []ruletrace.Hit `json:"hits,omitempty"`
	Packets   []seenPacket    `json:"packets,omitempty"`
}

// seenPacket is an observe.Event without what is of one machine only.
type seenPacket struct {
	Time            time.Time         `json:"time"` // by the host's clock
	Space           uint64            `json:"space"`
	Device          string            `json:"device"`
	Direction       observe.Direction `json:"direction"`
	OtherHost       bool              `json:"otherHost,omitempty"`
	Link            observe.LinkType  `json:"link"`
	Data            []byte            `json:"data"`
	WireLength      int               `json:"wireLength"`
	PartialChecksum bool              `json:"partialChecksum,omitempty"`
}

// The observers that an agent can have, as `--observer` calls them; the zero value is
// the best that there is.
const (
	ByBPF         = "bpf"
	ByTracepoints = "tracepoints"
	ByAFPacket    = "af_packet"
)
