package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/observe"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
)

// watcher is everything that looks at the packet's way while it is sent.
type watcher struct {
	skb     *skbtrace.Tracer
	rules   *ruletrace.Tracer
	capture *observe.Capture
	notes   []string
}

type opened struct {
	w   *watcher
	err error
}

// watchEarly begins to look before it is known for what, if that need not be
// known to say where: it takes as long as the prediction, and goes on beside it.
func (s *session) watchEarly() {
	if len(s.view.Places()) > smallLab {
		return
	}
	opening := make(chan opened, 1)
	s.opening = opening
	go func() {
		w, err := s.open()
		opening <- opened{w, err}
	}()
}

// watch looks for the packet from now on: by BPF and rule trace, by packet
// sockets, or by both where the packets are wanted as well.
func (s *session) watch() (err error) {
	if s.opening != nil {
		o := <-s.opening
		s.opening, s.watcher, err = nil, o.w, o.err
	} else {
		s.watcher, err = s.open()
	}
	if err != nil {
		return err
	}
	s.notes = append(s.notes, s.watcher.notes...)
	return s.watcher.follow(s.flow(), s.ruleFlows())
}

// open attaches all that there is to attach, for no packet yet. What it returns
// is to be closed also when it failed.
func (s *session) open() (w *watcher, err error) {
	w = &watcher{}
	names := s.watched()
	var spaces []*netns.NS
	for _, n := range names {
		ns, err := s.view.NS(n)
		if err != nil {
			return w, err
		}
		spaces = append(spaces, ns)
	}
	var g errgroup.Group
	if s.t.observer != AFPacket {
		g.Go(func() error { return s.openSKB(w, names, spaces) })
		g.Go(func() error { return w.openRules(s.withRules(names), datapath.Ports(s.ports())) })
	}
	if s.t.observer == AFPacket || s.r.Packets {
		g.Go(func() error { return s.openCapture(w, names) })
	}
	return w, g.Wait()
}

// openSKB attaches the BPF programs, or where the kernel cannot and it is not
// insisted on, opens packet sockets instead.
func (s *session) openSKB(w *watcher, names []string, spaces []*netns.NS) (err error) {
	w.skb, err = skbtrace.Open(skbtrace.Options{Namespaces: spaces, Bystanders: s.bystanders(names), Ports: datapath.Ports(s.ports()), TracepointsOnly: s.t.observer == Tracepoints})
	var unsupported *bpf.UnsupportedError
	if err == nil && !w.skb.Hooks() && s.t.observer == BPF {
		err = errors.Join(errors.New("this kernel has no netfilter programs (Linux 6.4)"), w.skb.Close())
		w.skb = nil
		return &MissingError{fmt.Errorf("observe by BPF: %w (--observer %s sees devices and drops)", err, Tracepoints)}
	}
	if err == nil && !w.skb.Hooks() && s.t.observer != Tracepoints {
		w.notes = append(w.notes, "observed by tracepoints, which see devices and drops but no hooks and no rules: this kernel has no netfilter programs (Linux 6.4)")
	}
	if err == nil || !errors.As(err, &unsupported) {
		return err
	}
	w.skb = nil
	if s.t.observer == BPF || s.t.observer == Tracepoints || s.live {
		return &MissingError{fmt.Errorf("observe by BPF: %w (--observer %s sees devices only)", err, AFPacket)}
	}
	w.notes = append(w.notes, "observed by AF_PACKET, which sees devices but no rules and no drops: "+err.Error())
	if s.r.Packets {
		return nil // they are open already
	}
	return s.openCapture(w, names)
}

func (s *session) openCapture(w *watcher, names []string) (err error) {
	w.capture, err = observe.Open(s.places(names), observe.Options{Ports: s.ports()})
	return err
}

// openRules is not vital: without it a hook says what became of the packet, but
// not by which rule.
func (w *watcher) openRules(spaces []*netns.NS, ports datapath.Ports) (err error) {
	if len(spaces) == 0 {
		return nil
	}
	if w.rules, err = ruletrace.Open(spaces, nil, ports); err != nil {
		w.rules = nil
		w.notes = append(w.notes, "rules are not named: "+err.Error())
	}
	return nil
}

// follow makes packets wanted.
func (w *watcher) follow(packet datapath.Flow, rules []datapath.Flow) error {
	if w.skb == nil {
		return nil
	}
	if err := w.skb.AddFlow(packet); err != nil {
		return err
	}
	if !w.skb.Hooks() {
		return w.followRewritten(packet, rules)
	}
	if w.rules == nil {
		return nil
	}
	for _, f := range rules {
		if err := w.rules.AddFlow(f); err != nil {
			return err
		}
	}
	return nil
}

// followRewritten makes packets wanted in the forms, too, that the sender's own
// hooks may give them, which nobody sees do so.
func (w *watcher) followRewritten(packet datapath.Flow, rewritten []datapath.Flow) error {
	for _, f := range append(rewritten, datapath.Flow{Proto: packet.Proto, Dst: packet.Dst}) {
		if err := w.skb.AddFlow(f); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) close() error {
	var g errgroup.Group
	if w.skb != nil {
		g.Go(w.skb.Close)
	}
	if w.rules != nil {
		g.Go(w.rules.Close)
	}
	if w.capture != nil {
		g.Go(w.capture.Close)
	}
	return g.Wait()
}
