package trace

import (
	"errors"
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// Trace is one packet's way, predicted, observed, and compared. The JSON form
// is part of the command line's contract.
type Trace struct {
	APIVersion  string            `json:"apiVersion"`
	Kind        string            `json:"kind"` // Trace
	Lab         string            `json:"lab"`
	Mode        topology.ModeName `json:"mode"`
	Source      Endpoint          `json:"source"`
	Destination Endpoint          `json:"destination"`
	// Verdict is the observed one where a packet was sent, else the predicted.
	Verdict Verdict `json:"verdict"`
	// Agree says whether prediction and observation are the same; nil where
	// there is nothing to compare.
	Agree         *bool          `json:"agree"`
	Disagreements []Disagreement `json:"disagreements"`
	Predicted     []Hop          `json:"predicted"`
	Observed      []Hop          `json:"observed"`
	Reply         Reply          `json:"reply"`

	// PredictedVerdict and ObservedVerdict are the two sides of Verdict.
	PredictedVerdict Verdict  `json:"predictedVerdict"`
	ObservedVerdict  *Verdict `json:"observedVerdict"` // nil: nothing was sent
	// PredictedCause and ObservedCause say why it was not delivered.
	PredictedCause *Cause `json:"predictedCause,omitempty"`
	ObservedCause  *Cause `json:"observedCause,omitempty"`
	// Branches are all ways that the packet could have taken, with their
	// probabilities. Predicted is the one that the observed packet took, or the
	// likeliest.
	Branches []Branch `json:"branches,omitempty"`
	// Observer says how it was observed: "bpf", "tracepoints" or "af_packet"; Observes lists
	// the stages that it can see.
	Observer string  `json:"observer,omitempty"`
	Observes []Stage `json:"observes,omitempty"`
	// LatencyNs is from the first to the last observed event of request and
	// reply; AnswerNs what the sender waited for its answer.
	LatencyNs int64 `json:"latencyNs,omitempty"`
	AnswerNs  int64 `json:"answerNs,omitempty"`
	// Clocks are those of the hosts that observed, the sender's first; none in a lab,
	// which has one.
	Clocks []Clock `json:"clocks,omitempty"`
	// Copies are places that saw a copy of the packet that was not for them.
	Copies []Hop `json:"copies,omitempty"`
	// Notes are what a reader must know to trust this trace.
	Notes []string `json:"notes,omitempty"`
	// WhatIf lists the edits that the prediction was made with.
	WhatIf []string `json:"whatIf,omitempty"`
}

// Clock is that of a host: how far it is ahead of the sender's host's, and how well
// that is known.
type Clock struct {
	Host     string `json:"host"`
	AheadNs  int64  `json:"aheadNs"`
	WithinNs int64  `json:"withinNs"`
}

// Endpoint is one end of a trace.
type Endpoint struct {
	Pod      string     `json:"pod,omitempty"`     // namespace/name
	Node     string     `json:"node,omitempty"`    // that it is, or is on
	Service  string     `json:"service,omitempty"` // namespace/name
	Name     string     `json:"name,omitempty"`    // as it was asked for
	Address  netip.Addr `json:"address"`
	Port     uint16     `json:"port,omitempty"`
	Protocol string     `json:"protocol,omitempty"`
}

// Reply is the way back.
type Reply struct {
	Predicted []Hop `json:"predicted"`
	Observed  []Hop `json:"observed"`
}

// Branch is one way that a packet can take.
type Branch struct {
	Probability float64        `json:"probability"`
	Verdict     Verdict        `json:"verdict"`
	Cause       *Cause         `json:"cause,omitempty"`
	Endpoint    netip.AddrPort `json:"endpoint,omitzero"` // where it ends
	Pod         string         `json:"pod,omitempty"`     // that has the endpoint
	Hops        []Hop          `json:"hops"`
	Reply       []Hop          `json:"reply,omitempty"`
}

// Disagreement is one point in which prediction and observation differ.
type Disagreement struct {
	Reply bool `json:"reply,omitempty"`
	// Predicted and Observed are indexes into the trace's hops; -1: has none.
	Predicted int    `json:"predicted"`
	Observed  int    `json:"observed"`
	What      string `json:"what"` // verdict | path | packet | rule | cause
	Text      string `json:"text"`
}

// Place is a namespace as people know it.
type Place struct {
	Label     string `json:"label"`          // "node01", "default/client", "fabric"
	Node      string `json:"node,omitempty"` // that it is, or is on
	Namespace string `json:"namespace"`
	Wire      bool   `json:"wire,omitempty"` // only switches frames: the fabric
	Pod       bool   `json:"pod,omitempty"`
}

// Network is what a packet is walked through. It reads on demand, so that only
// what lies on the path is collected; what it returns must not be changed.
type Network interface {
	// Place describes a namespace.
	Place(namespace string) Place
	// State reads a namespace. The packet's way ends as unknown where it fails.
	State(namespace string) (*datapath.NetState, error)
	// Peer finds the other end of a veth: its namespace and device name. An
	// error that wraps ErrNoPeer says that there is none.
	Peer(namespace, device string) (peerNamespace, peerDevice string, err error)
}

// Sketcher is a Network that can read less of a namespace that a frame may only
// pass by: everything but rules, sockets and connections. Without it, all of
// them are read in full, however many hear a flooded frame.
type Sketcher interface {
	// Sketch reads a namespace in part. It may return the whole state.
	Sketch(namespace string) (*datapath.NetState, error)
}

// ErrNoPeer says that a device has no other end in reach.
var ErrNoPeer = errors.New("no peer")
