package tracer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"slipway/datapath"
	"slipway/datapath/netfilter"
	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/lab/remote"
	"slipway/topology"
)

// Predict predicts a packet's way through a network that was read already, such as
// that of real hosts. Nothing is sent, and of the state it is the names, pods and
// services that count: no lab has to be there.
func Predict(st *lab.State, network *trace.Recorded, r Request) (*Bundle, error) {
	e, err := newElsewhere(st, network, r)
	if err != nil {
		return nil, err
	}
	return e.bundle(e.predict(e.spec().Packet()), nil), nil
}

// elsewhere is a trace through a network that is not of this machine.
type elsewhere struct {
	st       *lab.State
	recorded *trace.Recorded
	network  trace.Network // that, or an edited copy
	r        Request
	from     *lab.Target
	t        *trace.Trace
	rules    map[string]*netfilter.Rules
	packets  []observe.Event
}

func newElsewhere(st *lab.State, network *trace.Recorded, r Request) (*elsewhere, error) {
	from, src, err := source(st, r.From)
	if err != nil {
		return nil, err
	}
	if _, there := network.Places[from.NetNS]; !there {
		return nil, &NameError{r.From, "is on none of the hosts that were looked at", "trace from a node, or from a pod with a network of its own"}
	}
	dst, err := destination(st, r.To, r.Protocol)
	if err != nil {
		return nil, err
	}
	if r.Size > 0 && dst.Protocol != "udp" && dst.Protocol != "icmp" {
		return nil, sizeError(r.To, dst.Protocol)
	}
	t := &trace.Trace{
		APIVersion: APIVersion, Kind: Kind, Lab: st.Lab, Mode: st.Snapshot.Network.Mode,
		Source: src, Destination: dst, WhatIf: r.WhatIf, Notes: slices.Clone(network.Notes),
	}
	e := &elsewhere{st: st, recorded: network, network: network, r: r, from: from, t: t, rules: map[string]*netfilter.Rules{}}
	if len(r.WhatIf) == 0 {
		return e, nil
	}
	edits, err := trace.ParseEdits(r.WhatIf)
	if err != nil {
		return nil, err
	}
	if e.network, err = trace.Edited(network, st.Snapshot, edits); err != nil {
		return nil, err
	}
	for _, edit := range edits {
		if note := edit.Note(); note != "" {
			t.Notes = append(t.Notes, note)
		}
	}
	return e, nil
}

func (e *elsewhere) spec() observe.Spec {
	d := e.t.Destination
	return observe.Spec{
		Protocol: observe.Protocol(d.Protocol), To: netip.AddrPortFrom(d.Address, d.Port),
		Size: e.r.Size, TTL: e.r.TTL, Fragment: e.r.Fragment,
	}
}

func (e *elsewhere) predict(p datapath.Packet) trace.Prediction {
	out := trace.Predict(e.network, e.from.NetNS, p, trace.Options{})
	if e.r.Fragment == observe.FragmentDefault && tooLong(out) {
		p.DF = false // as the kernel has it, see session.predict
		out = trace.Predict(e.network, e.from.NetNS, p, trace.Options{})
	}
	return out
}

func (e *elsewhere) bundle(p trace.Prediction, o *trace.Observation) *Bundle {
	fill(e.t, p, o, e.st.Snapshot)
	return &Bundle{Trace: e.t, Snapshot: e.st.Snapshot, Network: e.recorded, Packets: e.packets}
}

// TraceOn predicts a packet's way through real hosts, sends it from the one that it
// comes from, and has all hosts that it may come to watch it. network is what was
// seen of them. Where nothing can be observed, and no way to observe was insisted
// on, the trace is a prediction that says why.
func TraceOn(ctx context.Context, st *lab.State, network *trace.Recorded, party *remote.Party, o Options, r Request) (*Bundle, error) {
	e, err := newElsewhere(st, network, r)
	if err != nil {
		return nil, err
	}
	p := e.predict(e.spec().Packet())
	if r.Predict {
		return e.bundle(p, nil), nil
	}
	b, err := e.observe(ctx, party, o, p)
	var blind *remote.BlindError
	switch {
	case err == nil || ctx.Err() != nil || !errors.As(err, &blind):
		return b, err
	case o.Observer != "" && o.Observer != Auto:
		return nil, &MissingError{err}
	}
	e.t.Notes = append(e.t.Notes, "predicted only, "+err.Error())
	return e.bundle(p, nil), nil
}

// observe sends the packet and watches it.
func (e *elsewhere) observe(ctx context.Context, party *remote.Party, o Options, p trace.Prediction) (*Bundle, error) {
	how := o.Observer
	if how == Auto {
		how = ""
	}
	n := e.st.Snapshot.Network
	ports := datapath.Ports{VXLAN: uint16(n.VXLAN.Port)} //nolint:gosec // checked by the cluster file
	if n.Mode == topology.FlannelUDP {
		ports.UDP = uint16(n.UDP.Port) //nolint:gosec // likewise
	}
	w, err := party.Watch(ctx, e.recorded, e.from.Node, e.watched(p), remote.WatchOptions{Observer: how, Ports: ports, Packets: e.r.Packets})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	sent, err := w.Prepare(ctx, e.from.NetNS, e.spec())
	if err != nil {
		return nil, err
	}
	p = e.predict(sent)
	sent = leaving(sent, p)
	all, rules := e.flows(sent, p, w.Observer())
	if err := w.Follow(ctx, all, rules); err != nil {
		return nil, &remote.BlindError{Err: err}
	}
	world := e.world(w, sent, ports)
	timeout := e.r.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	s, err := w.Send(ctx, timeout, func(s *remote.Sight) bool {
		here := world
		here.Places = s.Places
		return gaveUp(s.Events) && observe.FromSKB(s.Events, nil, here).Verdict != trace.Unknown
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &remote.BlindError{Err: err}
	}
	e.packets = s.Packets
	if !e.r.Packets {
		e.packets = nil
	}
	e.t.AnswerNs = s.Took.Nanoseconds()
	seen := e.understand(w, s, world)
	e.hide(&p, w, s, seen)
	return e.bundle(p, seen), nil
}

// smallSite is up to how many hosts all are watched, so that a packet that goes
// astray is seen wherever it goes.
const smallSite = 8

// watched are the hosts themselves, and the namespaces on any way that is predicted.
func (e *elsewhere) watched(p trace.Prediction) []string {
	on := map[string]bool{e.from.Node: true}
	out := []string{e.from.NetNS}
	add := func(namespace string) {
		if e.recorded.States[namespace] != nil && !slices.Contains(out, namespace) && len(out) < maxWatched {
			out = append(out, namespace)
		}
	}
	for _, b := range p.Branches {
		for _, h := range slices.Concat(b.Hops, b.Reply) {
			on[e.recorded.Places[h.Namespace].Node] = true
		}
	}
	small := len(e.st.Snapshot.Nodes) <= smallSite
	for _, n := range e.st.Snapshot.Nodes {
		if small || on[n.Name] {
			add(lab.NSOfMachine(e.st.Lab, n.Name))
		}
	}
	for _, b := range p.Branches {
		for _, h := range slices.Concat(b.Hops, b.Reply) {
			add(h.Namespace)
		}
	}
	for _, pod := range e.targets() {
		add(lab.NSOfPod(e.st.Lab, pod))
	}
	return out
}

// targets are the pods that the packet is for, also where no way to them is
// predicted.
func (e *elsewhere) targets() []string {
	out := []string{e.t.Destination.Pod}
	for _, v := range e.st.Snapshot.Services {
		if v.Key() != e.t.Destination.Service {
			continue
		}
		for _, p := range v.Ports {
			for _, at := range p.Endpoints {
				out = append(out, at.Pod)
			}
		}
	}
	return out
}

// flows select the packet on every host, whatever other hosts made of it: by what is
// left alone, the client's port or the echo's identifier; and where a masquerade may
// choose another port, by where it may be going.
func (e *elsewhere) flows(sent datapath.Packet, p trace.Prediction, observer string) (all, rules []datapath.Flow) {
	id := uint16(0)
	if sent.ICMP != nil {
		id = sent.ICMP.ID
	}
	kept := datapath.Flow{Proto: sent.Proto, Src: netip.AddrPortFrom(netip.Addr{}, sent.SPort), ICMPID: id}
	rules = []datapath.Flow{kept}
	add := func(dst netip.AddrPort) {
		f := datapath.Flow{Proto: sent.Proto, Dst: dst}
		if dst.IsValid() && dst.Port() != 0 && len(rules) < maxRuleFlows && !slices.Contains(rules, f) {
			rules = append(rules, f)
		}
	}
	for _, b := range p.Branches {
		renumbered := slices.ContainsFunc(b.Hops, func(h trace.Hop) bool {
			return h.Action == trace.Masquerade || h.Packet.Src.IsValid() && sent.Src.IsValid() && h.Packet.Src != sent.Src
		})
		if renumbered || observer == remote.ByTracepoints {
			add(b.Endpoint)
		}
	}
	all = append([]datapath.Flow{{Proto: sent.Proto, Src: sent.Source(), Dst: sent.Destination(), ICMPID: id}}, rules...)
	return all, rules
}

// leaving is a packet with the source address that routing chose for it.
func leaving(p datapath.Packet, prediction trace.Prediction) datapath.Packet {
	for _, b := range prediction.Branches {
		for _, h := range b.Hops {
			if h.Packet.Src.IsValid() {
				p.Src = h.Packet.Src
				return p
			}
		}
	}
	return p
}

// world is what the hosts' events need to be understood, but for the answer.
func (e *elsewhere) world(w *remote.Watch, sent datapath.Packet, ports datapath.Ports) observe.World {
	out := observe.World{
		Sender: e.recorded.Place(e.from.NetNS), Ports: observe.Ports(ports), Sent: sent, NoHooks: w.Observer() == remote.ByTracepoints,
	}
	if w.Rules() {
		out.Rule = e.ruleText
	}
	return out
}

func (e *elsewhere) ruleText(namespace, table, chain string, number int) string {
	rules, known := e.rules[namespace]
	if st := e.recorded.States[namespace]; !known && st != nil {
		rules, _ = netfilter.ParseState(st) // the prediction has complained
		e.rules[namespace] = rules
	}
	if rules == nil {
		return ""
	}
	return rules.Text(table, chain, number)
}

// understand makes a way of what hosts saw.
func (e *elsewhere) understand(w *remote.Watch, s *remote.Sight, world observe.World) *trace.Observation {
	world.Places, world.Lost = s.Places, s.Lost
	world.Answer = observe.Answer{Got: s.Took > 0 && s.Err == nil, Err: s.Err}
	e.t.Notes = append(e.t.Notes, w.Notes()...)
	if s.RulesLost > 0 {
		e.t.Notes = append(e.t.Notes, fmt.Sprintf("rules are not named: the kernels had no room for what they logged, %d times", s.RulesLost))
		world.Rule = nil
	}
	var o trace.Observation
	if w.Observer() == remote.ByAFPacket {
		world.Sender.Namespace = world.Sender.Label
		o = observe.FromCapture(s.Packets, world)
		e.rename(&o)
	} else {
		o = observe.FromSKB(s.Events, s.Hits, world)
	}
	e.tell(&o, s)
	return &o
}

// rename gives hops of captures, which know labels, their namespaces.
func (e *elsewhere) rename(o *trace.Observation) {
	byLabel := map[string]string{}
	for name, p := range e.recorded.Places {
		byLabel[p.Label] = name
	}
	for _, hops := range [][]trace.Hop{o.Request, o.Reply, o.Copies} {
		for i := range hops {
			hops[i].Namespace = byLabel[hops[i].Place]
		}
	}
	if o.Cause != nil {
		o.Cause.Namespace = byLabel[o.Cause.Place]
	}
}

// hide marks the predicted hops that nobody could have seen: between hosts, and on
// hosts that did not observe, or not to the end. Who got an answer was answered,
// whoever saw it.
func (e *elsewhere) hide(p *trace.Prediction, w *remote.Watch, s *remote.Sight, o *trace.Observation) {
	blind := w.Blind()
	for host, why := range s.Cut {
		blind[host] = why
	}
	passed := map[string]bool{}
	for i := range p.Branches {
		b := &p.Branches[i]
		for _, hops := range [][]trace.Hop{b.Hops, b.Reply} {
			for j := range hops {
				at := e.recorded.Places[hops[j].Namespace]
				_, unseen := blind[at.Node]
				hops[j].Hidden = hops[j].Hidden || at.Wire || unseen || !w.Watches(at.Node)
				passed[at.Node] = true
			}
		}
	}
	missed := false
	for _, host := range ordered.Keys(blind) {
		if passed[host] {
			missed = true
			e.t.Notes = append(e.t.Notes, fmt.Sprintf("nothing is known of what happened on %s: %s", host, blind[host]))
		}
	}
	if missed && o.Verdict == trace.Unknown && s.Took > 0 && s.Err == nil {
		o.Verdict, o.Cause = trace.Delivered, nil
	}
}
