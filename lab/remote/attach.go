package remote

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/datapath/bpf"
	"slipway/datapath/observe"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
)

// open attaches what the order asks for, or the best that the kernel has.
func (s *server) open(ctx context.Context, o *openOrder) (out *opened, err error) {
	if s.skb != nil || s.capture != nil {
		return nil, errors.New("this agent observes already")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.detach())
		}
	}()
	out = &opened{}
	watched, err := s.named(o.Watched)
	if err != nil {
		return nil, err
	}
	var g errgroup.Group
	var noSKB, noRules error
	if o.Observer != ByAFPacket {
		g.Go(func() (err error) { noSKB, err = s.openSKB(o, watched); return err })
		g.Go(func() error { noRules = s.openRules(o); return nil })
	}
	if o.Observer == ByAFPacket || o.Packets {
		g.Go(func() error { return s.openCapture(o, watched) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if noSKB != nil {
		out.Notes = append(out.Notes, noSKB.Error())
	} else if noRules != nil {
		out.Notes = append(out.Notes, "rules are not named: "+noRules.Error())
	}
	switch {
	case s.skb == nil:
		if out.Observer = ByAFPacket; s.capture == nil {
			err = s.openCapture(o, watched)
		}
		if s.rules != nil {
			err = errors.Join(err, s.rules.Close())
			s.rules = nil
		}
	case s.skb.Hooks():
		out.Observer, out.Rules = ByBPF, s.rules != nil
	default:
		out.Observer = ByTracepoints
	}
	if err == nil && s.skb != nil {
		s.running.Go(func() { s.stream(ctx) })
	}
	return out, err
}

// named are namespaces by inode; one that has just ended is an error.
func (s *server) named(inodes []uint64) ([]*netns.NS, error) {
	out := make([]*netns.NS, 0, len(inodes))
	for _, i := range inodes {
		if s.spaces[i] == nil {
			return nil, fmt.Errorf("the namespace net:[%d] is gone", i)
		}
		out = append(out, s.spaces[i])
	}
	return out, nil
}

// openSKB attaches BPF programs, to this machine's namespaces and no others: where
// the kernel is shared, the rest of the machine is not this host's. Where the
// kernel cannot and it is not insisted on, it says why.
func (s *server) openSKB(o *openOrder, watched []*netns.NS) (why, err error) {
	known := map[uint64]bool{}
	for _, i := range o.Watched {
		known[i] = true
	}
	var others []*netns.NS
	for i, ns := range s.spaces {
		if !known[i] && len(others) < maxBystanders {
			others = append(others, ns)
		}
	}
	s.skb, err = skbtrace.Open(skbtrace.Options{Namespaces: watched, Bystanders: others, Ports: o.Ports, TracepointsOnly: o.Observer == ByTracepoints})
	if err == nil && !s.skb.Hooks() && o.Observer == ByBPF {
		err = &bpf.UnsupportedError{Feature: "netfilter programs", Err: errors.New("they came with Linux 6.4")}
	}
	var unsupported *bpf.UnsupportedError
	if err == nil || o.Observer != "" || !errors.As(err, &unsupported) {
		return nil, err
	}
	s.skb = nil
	return err, nil
}

// openRules is not vital: without it a hook says what became of the packet, but
// not by which rule.
func (s *server) openRules(o *openOrder) error {
	spaces, err := s.named(o.Rules)
	if err == nil && len(spaces) > 0 {
		s.rules, err = ruletrace.Open(spaces, nil, o.Ports)
	}
	if err != nil {
		s.rules = nil
	}
	return err
}

// maxBystanders is less than the programs' map of namespaces holds.
const maxBystanders = 4000

func (s *server) openCapture(o *openOrder, watched []*netns.NS) (err error) {
	var places []observe.Place
	for i, ns := range watched {
		places = append(places, observe.Place{Label: strconv.FormatUint(o.Watched[i], 10), NS: ns})
	}
	s.capture, err = observe.Open(places, observe.Options{Ports: observe.Ports(o.Ports)})
	return err
}

// stream prints events as they come, until ctx ends.
func (s *server) stream(ctx context.Context) {
	some := func(e []skbtrace.Event) bool { return len(e) > 0 }
	for ctx.Err() == nil {
		select {
		case r := <-s.settle:
			until, cancel := context.WithTimeout(ctx, settleLimit)
			r.done <- s.print(s.skb.Collect(until, r.quiet, nil))
			cancel()
		default:
			if s.print(s.skb.Collect(ctx, pause, some)) != nil {
				return
			}
		}
	}
}

// pause is how long it is waited for events before something else may be asked.
const pause = 5 * time.Millisecond

func (s *server) print(events []skbtrace.Event, err error) error {
	if len(events) > 0 {
		s.say(report{Events: events})
	}
	if err != nil {
		s.say(report{Error: err.Error()})
		s.cancel()
	}
	return err
}

// follow makes packets wanted.
func (s *server) follow(o *followOrder) error {
	if s.skb == nil {
		return nil
	}
	for _, f := range o.Packets {
		if err := s.skb.AddFlow(f.flow()); err != nil {
			return err
		}
	}
	if s.rules == nil {
		return nil
	}
	for _, f := range o.Rules {
		if err := s.rules.AddFlow(f.flow()); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) detach() error {
	var g errgroup.Group
	if s.skb != nil {
		g.Go(s.skb.Close)
	}
	if s.rules != nil {
		g.Go(s.rules.Close)
	}
	if s.capture != nil {
		g.Go(s.capture.Close)
	}
	s.skb, s.rules, s.capture = nil, nil, nil
	return g.Wait()
}
