package tracer

import (
	"context"
	"errors"
	"time"

	"slipway/datapath/netfilter"
	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/lab"
	"slipway/lab/netview"
)

// The identity of a trace's JSON form.
const (
	APIVersion = "slipway/v1alpha1"
	Kind       = "Trace"
)

// The ways to observe.
const (
	Auto        = "auto"        // the best that the kernel offers
	BPF         = "bpf"         // tracepoints and netfilter hooks, every step in the kernel
	Tracepoints = "tracepoints" // devices and drop reasons, no hooks
	AFPacket    = "af_packet"   // packet sockets, which see devices only
)

// Observers are the values of the --observer flag.
var Observers = []string{Auto, BPF, Tracepoints, AFPacket}

// MissingError says that what was asked for cannot be had on this machine.
type MissingError struct{ Err error }

// Error says what is missing.
func (e *MissingError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *MissingError) Unwrap() error { return e.Err }

// Options of a tracer.
type Options struct {
	Observer string // one of Observers; empty is Auto
}

// Request is one packet to trace.
type Request struct {
	From, To string
	Protocol string // empty: what the destination is declared as
	Size     int    // payload, bytes
	TTL      uint8
	Fragment observe.Fragmentation
	Timeout  time.Duration // how long to wait for an answer
	Predict  bool          // send nothing
	WhatIf   []string      // edits to predict on
	Packets  bool          // keep the packets as they were on each device
}

// Tracer traces packets of one lab. It is not safe for concurrent use.
type Tracer struct {
	st       *lab.State
	observer string
}

// New makes a tracer of a lab. Nothing is looked at yet.
func New(st *lab.State, o Options) *Tracer { return &Tracer{st: st, observer: o.Observer} }

// Trace predicts one packet, and unless told otherwise sends and watches it.
func (t *Tracer) Trace(ctx context.Context, r Request) (b *Bundle, err error) {
	s, err := t.begin(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if !r.Predict {
		s.watchEarly()
	}
	if err := s.predict(ctx); err != nil {
		return nil, err
	}
	if !r.Predict {
		if err := s.send(ctx); err != nil {
			return nil, err
		}
	}
	return s.bundle(), nil
}

// session is one trace in the making.
type session struct {
	t    *Tracer
	r    Request
	view *netview.View
	// network is the view, or an edited copy.
	network  trace.Network
	from     *lab.Target
	src, dst trace.Endpoint
	probe    *observe.Probe

	opening chan opened // nil: nothing is being opened
	watcher *watcher

	prediction  trace.Prediction
	observation *trace.Observation
	answer      time.Duration
	packets     []observe.Event
	notes       []string
	rules       map[string]*netfilter.Rules // by namespace, as they were read
	live        bool                        // nothing is sent: the packets of others are followed
}

func newSession(t *Tracer, r Request) *session {
	return &session{t: t, r: r, rules: map[string]*netfilter.Rules{}}
}

func (t *Tracer) begin(ctx context.Context, r Request) (*session, error) {
	s := newSession(t, r)
	var err error
	if s.from, s.src, err = source(t.st, r.From); err != nil {
		return nil, err
	}
	if s.dst, err = destination(t.st, r.To, r.Protocol); err != nil {
		return nil, err
	}
	if r.Size > 0 && s.dst.Protocol != "udp" && s.dst.Protocol != "icmp" {
		return nil, sizeError(r.To, s.dst.Protocol)
	}
	if s.view, err = netview.Open(ctx, t.st, netview.Options{}); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func sizeError(to, protocol string) error {
	return &NameError{to, "--size is for udp and icmp: the first packet of " + protocol + " carries no payload", "choose --proto udp or icmp"}
}

func (s *session) close() error {
	var errs []error
	if s.opening != nil {
		s.watcher = (<-s.opening).w // of no use any more
	}
	if s.watcher != nil {
		errs = append(errs, s.watcher.close())
	}
	if s.probe != nil {
		errs = append(errs, s.probe.Close())
	}
	return errors.Join(append(errs, s.view.Close())...)
}

// bundle puts everything together.
func (s *session) bundle() *Bundle {
	t := &trace.Trace{
		APIVersion: APIVersion, Kind: Kind, Lab: s.t.st.Lab, Mode: s.t.st.Snapshot.Network.Mode,
		Source: s.src, Destination: s.dst, WhatIf: s.r.WhatIf, Notes: s.notes,
		AnswerNs: s.answer.Nanoseconds(),
	}
	fill(t, s.prediction, s.observation, s.t.st.Snapshot)
	return &Bundle{Trace: t, Snapshot: s.t.st.Snapshot, Network: s.view.Recorded(), Packets: s.packets}
}
