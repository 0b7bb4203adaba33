package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/datapath/bpf"
	"slipway/datapath/hostview"
	"slipway/datapath/observe"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
)

// agentLimit bounds how long an agent observes, whatever it is told.
const agentLimit = 10 * time.Minute

// Observe is the agent: it does what orders on its stdin say, and prints reports,
// until ctx ends, its stdin does, nobody reads what it prints, or its time is over.
// Everything that it attached is gone then.
func Observe(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeout(ctx, agentLimit)
	defer cancel()
	spaces, _, err := hostview.Open()
	if err != nil {
		return err
	}
	defer hostview.Close(spaces)
	s := &server{spaces: spaces, enc: json.NewEncoder(out), cancel: cancel, settle: make(chan settleRequest)}
	defer func() { err = errors.Join(err, s.close()) }()
	orders := make(chan order)
	go func() {
		defer cancel()
		for dec := json.NewDecoder(bufio.NewReader(in)); ; {
			var o order
			if dec.Decode(&o) != nil { // who gives orders is gone, or not who it should be
				return
			}
			select {
			case orders <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case o := <-orders:
			s.do(ctx, o)
		case <-ctx.Done():
			return nil
		}
	}
}

// server is the agent's state.
type server struct {
	spaces map[uint64]*netns.NS
	cancel context.CancelFunc

	mu  sync.Mutex // of enc
	enc *json.Encoder

	skb     *skbtrace.Tracer
	rules   *ruletrace.Tracer
	capture *observe.Capture
	probe   *observe.Probe
	settle  chan settleRequest
	running sync.WaitGroup
}

type settleRequest struct {
	quiet time.Duration
	done  chan error
}

// say prints a report; where nobody reads, the agent ends.
func (s *server) say(r report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.enc.Encode(r) != nil {
		s.cancel()
	}
}

// do carries an order out, and answers it.
func (s *server) do(ctx context.Context, o order) {
	r := report{}
	var err error
	switch {
	case o.Open != nil:
		r.Opened, err = s.open(ctx, o.Open)
	case o.Prepare != nil:
		err = s.prepare(o.Prepare)
		if err == nil {
			p := s.probe.Packet()
			r.Prepared = &p
		}
	case o.Follow != nil:
		err = s.follow(o.Follow)
	case o.Fire != nil:
		s.fire(ctx, o.ID, o.Fire)
		return
	case o.Clock:
		var now unix.Timespec
		err = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		r.MonoNs, r.WallNs = now.Nano(), time.Now().UnixNano()
	case o.Settle != nil:
		r.Settled, err = s.settled(ctx, o.Settle)
	default:
		err = errors.New("an order that this version does not know")
	}
	if r.ID = o.ID; err != nil {
		var unsupported *bpf.UnsupportedError
		r = report{ID: o.ID, Error: err.Error(), Missing: errors.As(err, &unsupported) || errors.Is(err, unix.EPROTONOSUPPORT)}
	}
	s.say(r)
}

func (s *server) prepare(o *sendOrder) (err error) {
	ns := s.spaces[o.Space]
	if ns == nil {
		return fmt.Errorf("the namespace net:[%d] is gone", o.Space)
	}
	if s.probe != nil {
		err = s.probe.Close()
	}
	s.probe = nil
	if err != nil {
		return err
	}
	s.probe, err = observe.Prepare(ns, o.Spec)
	return err
}

// fire sends, and waits beside what else there is to do.
func (s *server) fire(ctx context.Context, id int, o *fireOrder) {
	p := s.probe
	if p == nil {
		s.say(report{ID: id, Error: "no probe is prepared"})
		return
	}
	if err := p.Fire(); err != nil { // the kernel refused at once: what it did until then was seen
		s.say(report{ID: id, Fired: &p.Match, Answer: answerOf(0, err)})
		return
	}
	s.say(report{ID: id, Fired: &p.Match})
	s.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, o.Timeout)
		defer cancel()
		took, err := p.Wait(ctx)
		s.say(report{ID: id, Answer: answerOf(took, err)})
	})
}

func answerOf(took time.Duration, err error) *answer {
	a := &answer{Took: took}
	if err == nil {
		return a
	}
	a.Error, a.None = err.Error(), errors.Is(err, observe.ErrNoAnswer)
	if no := syscall.Errno(0); !a.None && errors.As(err, &no) {
		a.Errno = int(no)
	}
	return a
}

// err is the error that the sender had; the system's stays one.
func (a *answer) err() error {
	switch {
	case a.None:
		return observe.ErrNoAnswer
	case a.Errno != 0:
		return syscall.Errno(a.Errno)
	case a.Error != "":
		return errors.New(a.Error)
	}
	return nil
}

// settled waits until it is quiet and tells what is left to tell. The events were
// printed before.
func (s *server) settled(ctx context.Context, o *settleOrder) (*settled, error) {
	out := &settled{}
	if s.skb != nil {
		done := make(chan error, 1)
		select {
		case s.settle <- settleRequest{o.Quiet, done}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := <-done; err != nil {
			return nil, err
		}
		out.Lost = s.skb.Lost()
	}
	if s.rules != nil {
		hits, err := s.rules.Hits(0)
		if err != nil {
			return nil, err
		}
		out.Hits, out.RulesLost = hits, s.rules.Lost()
	}
	if s.capture == nil {
		return out, nil
	}
	if o.Match.Client.IsValid() && o.Match.Seq == nil && s.skb == nil && s.probe == nil {
		return out, nil // a connection of which nothing is known here
	}
	quiet := time.Duration(0)
	if s.skb == nil {
		quiet = o.Quiet
	}
	until, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	events, err := s.capture.Collect(until, o.Match, quiet)
	if err != nil && until.Err() == nil {
		return nil, err
	}
	for _, e := range events[:min(len(events), mostPackets)] {
		space, _ := strconv.ParseUint(e.Place.Label, 10, 64) // as openCapture wrote it
		out.Packets = append(out.Packets, seenPacket{e.Time, space, e.Device, e.Direction, e.OtherHost, e.LinkType, e.Data, e.WireLength, e.PartialChecksum})
	}
	if s.skb == nil {
		out.Lost = s.capture.Dropped()
	}
	return out, nil
}

// Bounds of what one settling takes and tells.
const (
	settleLimit = time.Second
	mostPackets = 2000
)

func (s *server) close() error {
	s.cancel()
	s.running.Wait()
	var errs []error
	if s.probe != nil {
		errs = append(errs, s.probe.Close())
	}
	return errors.Join(append(errs, s.detach())...)
}
