package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/datapath"
	"slipway/datapath/observe"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
)

// WatchOptions say how to watch.
type WatchOptions struct {
	Observer string // ByBPF, …; empty for the best that all hosts have
	Ports    datapath.Ports
	Packets  bool // keep the packets as they were on each device
}

// Watch is agents on hosts that look for one packet.
type Watch struct {
	party    *Party
	network  *trace.Recorded
	o        WatchOptions
	sender   string
	observer string
	talks    map[string]*talk
	clocks   []trace.Clock // as measured, the sender's first
	walls    map[string]int64
	rules    bool
	blind    map[string]string // hosts that do not observe, and why
	notes    []string
}

// BlindError says that nothing can be observed.
type BlindError struct {
	Err error
	// Missing: a kernel has not what it takes.
	Missing bool
}

// Error says why.
func (e *BlindError) Error() string { return "nothing can be observed: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BlindError) Unwrap() error { return e.Err }

// Watch attaches observers on hosts, the one that sends first: to their own
// namespaces that are named, and to the devices of all others of theirs. network is
// what was seen of all. Hosts that cannot take part are blind, which is told; a
// *BlindError says that it makes no sense then.
func (p *Party) Watch(ctx context.Context, network *trace.Recorded, sender string, namespaces []string, o WatchOptions) (out *Watch, err error) {
	w := &Watch{party: p, network: network, o: o, sender: sender, talks: map[string]*talk{}, blind: map[string]string{}, walls: map[string]int64{}}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	orders := w.orders(namespaces)
	if orders[sender] == nil {
		return nil, &BlindError{Err: fmt.Errorf("%s, which sends, was not looked at", sender)}
	}
	got, errs := w.open(ctx, orders)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	level := w.level(got)
	for host, g := range got { // those that could do more than others do as these
		if g.Observer != level && level == ByAFPacket {
			again := *orders[host]
			again.Observer = ByAFPacket
			w.talks[host].leave()
			delete(w.talks, host)
			_, e := w.open(ctx, map[string]*openOrder{host: &again})
			for h, err := range e {
				errs[h] = err
			}
		}
		for _, n := range g.Notes {
			w.notes = append(w.notes, host+": "+n)
		}
	}
	slices.Sort(w.notes)
	for host, e := range errs {
		w.blind[host] = e.Error()
	}
	if e := errs[sender]; e != nil {
		var r *refusal
		return nil, &BlindError{e, errors.As(e, &r) && r.missing}
	}
	w.observer = level
	w.rules = level == ByBPF && !slices.ContainsFunc(ordered.Keys(got), func(h string) bool { return !got[h].Rules && len(orders[h].Rules) > 0 })
	return w, w.measure(ctx)
}

// orders are what each host's agent is to attach to.
func (w *Watch) orders(namespaces []string) map[string]*openOrder {
	out := map[string]*openOrder{}
	for _, name := range namespaces {
		p, st := w.network.Places[name], w.network.States[name]
		if st == nil || w.party.guests[p.Node] == nil || p.Wire {
			continue
		}
		o := out[p.Node]
		if o == nil {
			o = &openOrder{Observer: w.o.Observer, Ports: w.o.Ports, Packets: w.o.Packets}
			out[p.Node] = o
		}
		o.Watched = append(o.Watched, st.Inode)
		if !p.Pod && (len(st.RuleSave) > 0 || st.NFTables != "") {
			o.Rules = append(o.Rules, st.Inode)
		}
	}
	return out
}

// open starts agents and attaches their observers.
func (w *Watch) open(ctx context.Context, orders map[string]*openOrder) (map[string]*opened, map[string]error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	got, errs := map[string]*opened{}, map[string]error{}
	for host, o := range orders {
		all.Go(func() {
			t, out, err := w.openOn(ctx, host, o)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[host] = err
				return
			}
			w.talks[host], got[host] = t, out
		})
	}
	all.Wait()
	return got, errs
}

// openPatience bounds what a host may take to attach.
const openPatience = time.Minute

func (w *Watch) openOn(ctx context.Context, host string, o *openOrder) (*talk, *opened, error) {
	run, err := w.party.guests[host].runner()
	if err != nil {
		return nil, nil, err
	}
	t := begin(ctx, host, run)
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	r, err := t.ask(ctx, order{Open: o})
	if err == nil && r.Opened == nil {
		err = fmt.Errorf("%s: the agent does not say what it does", host)
	}
	if err != nil {
		t.leave()
		return nil, nil, err
	}
	return t, r.Opened, nil
}

// level is what all that observe can.
func (w *Watch) level(got map[string]*opened) string {
	levels := []string{ByBPF, ByTracepoints, ByAFPacket}
	out := 0
	for _, host := range ordered.Keys(got) {
		if n := slices.Index(levels, got[host].Observer); n > 0 {
			out = max(out, n)
			w.notes = append(w.notes, fmt.Sprintf("%s: its kernel can be observed by %s only", host, got[host].Observer))
		}
	}
	if w.o.Observer != "" || out == 0 {
		w.notes = nil // it was asked for
	}
	return levels[out]
}

// measure finds how clocks differ, the best of some tries: an answer's time is
// known to half of what asking takes.
func (w *Watch) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	type reading struct {
		ahead, within time.Duration // of CLOCK_MONOTONIC, to this machine's
		wall          int64         // what the host's own wall clock is ahead of that
	}
	begun := time.Now()
	read := map[string]reading{}
	for host, t := range w.talks {
		best := reading{within: time.Hour}
		for range clockTries {
			sent := time.Since(begun)
			r, err := t.ask(ctx, order{Clock: true})
			if err != nil {
				if host == w.sender || ctx.Err() != nil {
					return err
				}
				w.lose(host, err)
				break
			}
			if within := (time.Since(begun) - sent) / 2; within < best.within {
				best = reading{time.Duration(r.MonoNs) - sent - within, within, r.WallNs - r.MonoNs}
			}
		}
		read[host] = best
	}
	own := read[w.sender]
	w.clocks = []trace.Clock{{Host: w.sender}}
	for _, host := range ordered.Keys(w.talks) {
		w.walls[host] = read[host].wall
		if host != w.sender {
			w.clocks = append(w.clocks, trace.Clock{
				Host: host, AheadNs: int64(read[host].ahead - own.ahead), WithinNs: int64(read[host].within + own.within),
			})
		}
	}
	return nil
}

// clockTries are how often a clock is asked for.
const clockTries = 7

// lose gives a host up that can be listened to no more.
func (w *Watch) lose(host string, why error) {
	w.blind[host] = why.Error()
	if t := w.talks[host]; t != nil {
		delete(w.talks, host)
		t.leave()
	}
}

// Observer is what all hosts observe by: ByBPF, ByTracepoints or ByAFPacket.
func (w *Watch) Observer() string { return w.observer }

// Rules reports whether rules' hits are recorded on all hosts.
func (w *Watch) Rules() bool { return w.rules }

// Watches reports whether a host takes part.
func (w *Watch) Watches(host string) bool { return w.talks[host] != nil }

// Blind are hosts that do not observe, with why.
func (w *Watch) Blind() map[string]string { return w.blind }

// Notes are what a reader has to know of how it is observed.
func (w *Watch) Notes() []string { return w.notes }

// Prepare opens a probe's socket in a namespace of the sender's and says what it
// will send.
func (w *Watch) Prepare(ctx context.Context, namespace string, spec observe.Spec) (datapath.Packet, error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	r, err := w.talks[w.sender].ask(ctx, order{Prepare: &sendOrder{w.network.States[namespace].Inode, spec}})
	if err != nil || r.Prepared == nil {
		var no *refusal
		return datapath.Packet{}, &BlindError{fmt.Errorf("prepare a %s probe: %w", spec.Protocol, err), errors.As(err, &no) && no.missing}
	}
	return *r.Prepared, nil
}

// Follow makes packets wanted on all hosts: each is told all forms that the packet
// may have, as it cannot see how other hosts rewrite it.
func (w *Watch) Follow(ctx context.Context, packets, rules []datapath.Flow) error {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	for _, host := range ordered.Keys(w.talks) {
		if _, err := w.talks[host].ask(ctx, order{Follow: &followOrder{flowsOf(packets), flowsOf(rules)}}); err != nil {
			if host == w.sender || ctx.Err() != nil {
				return err
			}
			w.lose(host, err)
		}
	}
	return nil
}

// Close has all agents end, and waits until they have: nothing of theirs is
// attached then.
func (w *Watch) Close() {
	var all sync.WaitGroup
	for _, t := range w.talks {
		all.Go(t.leave)
	}
	all.Wait()
}

// Sight is what hosts saw of one packet, as if one machine had: its namespaces and
// socket buffers have numbers of their own, and times are by the sender's clock.
type Sight struct {
	Events    []skbtrace.Event
	Hits      []ruletrace.Hit
	Packets   []observe.Event
	Places    map[uint64]trace.Place
	Took      time.Duration
	Err       error // that the sender got
	Lost      int   // events that a kernel had no room for
	RulesLost int
	Clocks    []trace.Clock
	// Cut are hosts whose agent ended meanwhile, with why.
	Cut map[string]string
}

// Quiet times: how long nothing must come before a packet's way is taken to be
// complete: after the answer, and after a drop for whatever that sets off.
const (
	quietAnswered = 3 * time.Millisecond
	quietDropped  = 60 * time.Millisecond
)

// Send sends the probe and collects what becomes of it, until it is answered, until
// lost says of what was seen that it was lost, or until the time is over.
func (w *Watch) Send(ctx context.Context, timeout time.Duration, lost func(*Sight) bool) (*Sight, error) {
	t := w.talks[w.sender]
	c, err := t.send(order{Fire: &fireOrder{timeout}})
	if err != nil {
		return nil, err
	}
	r, err := t.answer(ctx, c)
	if err != nil {
		return nil, err
	}
	match := observe.Match{}
	if r.Fired != nil {
		match = *r.Fired
	}
	got := r.Answer
	if got == nil {
		if got, err = w.wait(ctx, c, timeout, lost); err != nil {
			return nil, err
		}
	}
	return w.settle(ctx, match, got)
}

// wait waits for the answer; nil says that the packet was lost before.
func (w *Watch) wait(ctx context.Context, c <-chan report, timeout time.Duration, lost func(*Sight) bool) (*answer, error) {
	const slack = 10 * time.Second // of the agent's own timeout
	over := time.NewTimer(timeout + slack)
	defer over.Stop()
	tick := time.NewTicker(quietDropped / 2)
	defer tick.Stop()
	looked := 0
	for {
		select {
		case r, ok := <-c:
			if !ok {
				return nil, w.talks[w.sender].why()
			}
			if r.Answer == nil {
				return nil, &refusal{w.sender, "the agent does not say what came of the probe: " + r.Error, false}
			}
			return r.Answer, nil
		case <-over.C:
			return &answer{None: true}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
			n, quiet := w.heard()
			if n == looked || !quiet {
				continue
			}
			if looked = n; lost(w.join()) {
				return nil, nil //nolint:nilnil // nobody waits for an answer any more
			}
		}
	}
}

// heard counts the events until now, and says whether none came lately.
func (w *Watch) heard() (n int, quiet bool) {
	quiet = true
	for _, t := range w.talks {
		events, latest := t.seen()
		n += len(events)
		quiet = quiet && time.Since(latest) > quietDropped
	}
	return n, quiet
}

// settle gets the rest from all agents, the sender's first: of a connection it alone
// knows which packets are meant.
func (w *Watch) settle(ctx context.Context, match observe.Match, got *answer) (*Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	quiet := quietAnswered
	if w.observer == ByAFPacket {
		quiet = quietDropped
	}
	hosts := append([]string{w.sender}, slices.DeleteFunc(ordered.Keys(w.talks), func(h string) bool { return h == w.sender })...)
	rest, cut := map[string]*settled{}, map[string]string{}
	for _, host := range hosts {
		r, err := w.talks[host].ask(ctx, order{Settle: &settleOrder{quiet, match}})
		if err != nil || r.Settled == nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			cut[host] = strings.TrimPrefix(fmt.Sprint(err), host+": ")
			continue
		}
		rest[host] = r.Settled
		if host == w.sender && match.Client.IsValid() {
			match.Seq = w.sequence(match, r.Settled)
		}
	}
	s := w.join()
	for _, host := range hosts {
		if r := rest[host]; r != nil {
			w.addRest(s, host, r)
		}
	}
	w.orderPackets(s)
	s.Cut = cut
	if got != nil {
		s.Took, s.Err = got.Took, got.err()
	}
	return s, nil
}
