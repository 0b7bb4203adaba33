package tracer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/lab"
)

// prepare settles the packet. A prediction needs no socket, and so nothing that
// only the sender's kernel could refuse.
func (s *session) prepare(context.Context) error {
	if s.r.Predict {
		return nil
	}
	ns, err := s.view.NS(s.from.NetNS)
	if err != nil {
		return err
	}
	s.probe, err = observe.Prepare(ns, s.spec())
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return &MissingError{fmt.Errorf("this kernel has no %s: %w (--predict needs none)", s.dst.Protocol, err)}
	}
	return err
}

func (s *session) spec() observe.Spec {
	return observe.Spec{
		Protocol: observe.Protocol(s.dst.Protocol), To: netip.AddrPortFrom(s.dst.Address, s.dst.Port),
		Size: s.r.Size, TTL: s.r.TTL, Fragment: s.r.Fragment,
	}
}

// packet is what is sent, or would be; of live packets, what they have in
// common.
func (s *session) packet() datapath.Packet {
	if s.live {
		return datapath.Packet{Src: s.src.Address, Dst: s.dst.Address, Proto: s.dst.Protocol, DPort: s.dst.Port}
	}
	if s.probe != nil {
		return s.probe.Packet()
	}
	return s.spec().Packet()
}

func (s *session) predict(ctx context.Context) (err error) {
	s.network = s.view
	if len(s.r.WhatIf) > 0 {
		edits, err := trace.ParseEdits(s.r.WhatIf)
		if err != nil {
			return err
		}
		if s.network, err = trace.Edited(s.view, s.t.st.Snapshot, edits); err != nil {
			return err
		}
		for _, e := range edits {
			if note := e.Note(); note != "" {
				s.notes = append(s.notes, note)
			}
		}
	}
	s.view.Prefetch(ctx, s.firstPlaces()...)
	p, o := s.packet(), trace.Options{Cache: trace.NewCache(s.network)}
	s.prediction = trace.Predict(s.network, s.from.NetNS, p, o)
	if s.r.Fragment == observe.FragmentDefault && tooLong(s.prediction) {
		// Left to itself, the kernel sets the bit only where the packet fits
		// (net/ipv4/ip_output.c, __ip_make_skb).
		p.DF = false
		s.prediction = trace.Predict(s.network, s.from.NetNS, p, o)
	}
	return ctx.Err()
}

// tooLong reports whether the sender's own kernel would refuse the packet
// because it may not be fragmented.
func tooLong(p trace.Prediction) bool {
	for _, b := range p.Branches {
		if b.Cause != nil && b.Cause.Reason == trace.ReasonMTU && b.Cause.Stage == trace.Socket {
			return true
		}
	}
	return false
}

// firstPlaces are namespaces that will be asked for in any case, so that they
// are read at once and not one after the other.
func (s *session) firstPlaces() []string {
	nodes := []string{s.src.Node, s.dst.Node}
	for _, v := range s.t.st.Snapshot.Services {
		if v.Key() != s.dst.Service {
			continue
		}
		for _, p := range v.Ports {
			for _, e := range p.Endpoints {
				nodes = append(nodes, e.Node)
			}
		}
	}
	out := []string{s.from.NetNS}
	for _, n := range nodes {
		if ns := s.machine(n); n != "" && !slices.Contains(out, ns) && len(out) < maxFirst {
			out = append(out, ns)
		}
	}
	return out
}

// maxFirst bounds what is read before it is known to be needed.
const maxFirst = 6

// predictedPacket is the packet as it leaves the sender, with the source
// address that routing chose.
func (s *session) predictedPacket() datapath.Packet {
	p := s.packet()
	for _, b := range s.prediction.Branches {
		for _, h := range b.Hops {
			if h.Packet.Src.IsValid() {
				p.Src = h.Packet.Src
				return p
			}
		}
	}
	return p
}

// watched lists the namespaces to attach to: all of a small lab, so that a
// packet that goes astray is seen wherever it goes, else those of any way that
// is predicted. (Devices are seen everywhere in any case.)
func (s *session) watched() []string {
	places := s.view.Places()
	if len(places) <= smallLab {
		var out []string
		for _, p := range places {
			out = append(out, p.Namespace)
		}
		return out
	}
	out := s.firstPlaces()
	for _, b := range s.prediction.Branches {
		for _, h := range slices.Concat(b.Hops, b.Reply) {
			if h.Namespace != "" && !slices.Contains(out, h.Namespace) && len(out) < maxWatched {
				out = append(out, h.Namespace)
			}
		}
	}
	return out
}

const (
	smallLab   = 16
	maxWatched = 64
)

// bystanders are what hears a frame that a switch floods, and is not watched:
// all machines, and the pods of watched nodes.
func (s *session) bystanders(watched []string) []*netns.NS {
	nodes := map[string]bool{}
	for _, n := range watched {
		nodes[s.view.Place(n).Node] = true
	}
	var out []*netns.NS
	for _, p := range s.view.Places() {
		if slices.Contains(watched, p.Namespace) || (p.Pod && !nodes[p.Node]) || len(out) == maxBystanders {
			continue
		}
		if ns, err := s.view.NS(p.Namespace); err == nil { // one that is gone hears nothing
			out = append(out, ns)
		}
	}
	return out
}

// maxBystanders is less than the programs' map of namespaces holds.
const maxBystanders = 4000

// answered is what the sender got.
type answered struct {
	took time.Duration
	err  error
}

// defaultTimeout is longer than the kernel takes to give up on a neighbour
// (net.ipv4.neigh.*.mcast_solicit × retrans_time_ms, 3 s).
const defaultTimeout = 4 * time.Second

func (s *session) machine(name string) string { return lab.NSOfMachine(s.t.st.Lab, name) }
