package ruletrace

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
)

// ErrBusy reports that another process traces rules in a namespace: the kernel
// sends what it logs to one reader only.
var ErrBusy = errors.New("rules are being traced by another process")

// Tracer traces rules until it is closed or the process ends.
type Tracer struct {
	ports  datapath.Ports
	spaces []*space
}

// Open traces in all namespaces before it returns: ErrBusy if one is taken. The
// namespaces stay open until the tracer is closed. A packet is wanted if it or
// the packet that it carries or quotes is of one of the flows, of which addresses
// are left out where ports or identifiers select well enough, as they may have
// been rewritten before.
func Open(namespaces []*netns.NS, flows []datapath.Flow, ports datapath.Ports) (*Tracer, error) {
	for _, f := range flows {
		if err := f.Validate(); err != nil {
			return nil, err
		}
	}
	t := &Tracer{ports: ports, spaces: make([]*space, len(namespaces))}
	var g errgroup.Group
	for i, ns := range namespaces {
		g.Go(func() error {
			s, err := openSpace(ns, flows, ports)
			if err != nil {
				return fmt.Errorf("trace rules in %s: %w", ns.Name(), err)
			}
			t.spaces[i] = s
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// AddFlow makes more packets wanted, from now on.
func (t *Tracer) AddFlow(f datapath.Flow) error {
	if err := f.Validate(); err != nil {
		return err
	}
	var g errgroup.Group
	for _, s := range t.spaces {
		g.Go(func() error {
			if err := s.rules.commit(newRules(f, t.ports)); err != nil {
				return fmt.Errorf("trace more rules in %s: %w", s.ns.Name(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Hits returns the rules that packets came to since the last call, in the order
// of each namespace. It ends when nothing came for quiet; with zero it takes what
// is there, which is everything that packets did before the call.
func (t *Tracer) Hits(quiet time.Duration) ([]Hit, error) {
	var all []Hit
	last := time.Now()
	for {
		n := len(all)
		for _, s := range t.spaces {
			var err error
			if all, err = s.drain(all); err != nil {
				return all, fmt.Errorf("read rule hits in %s: %w", s.ns.Name(), err)
			}
		}
		if len(all) > n {
			last = time.Now()
		}
		left := quiet - time.Since(last)
		if left <= 0 {
			return all, nil
		}
		if err := t.wait(left); err != nil {
			return all, err
		}
	}
}

// wait returns when a hit is there, or after that time.
func (t *Tracer) wait(d time.Duration) error {
	fds := make([]unix.PollFd, 0, 2*len(t.spaces))
	for _, s := range t.spaces {
		fds = append(fds, unix.PollFd{Fd: int32(s.log.fd), Events: unix.POLLIN}, unix.PollFd{Fd: int32(s.traces.fd), Events: unix.POLLIN})
	}
	timeout := unix.NsecToTimespec(int64(d))
	if _, err := unix.Ppoll(fds, &timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for rule hits: %w", err)
	}
	return nil
}

// Lost is how many times hits found no room: unless it is zero, the absence of
// a hit says nothing.
func (t *Tracer) Lost() int {
	n := 0
	for _, s := range t.spaces {
		n += s.lost
	}
	return n
}

// Close stops the tracing and gives each namespace back the logger it had.
func (t *Tracer) Close() error {
	var g errgroup.Group
	for _, s := range t.spaces {
		if s != nil {
			g.Go(s.close)
		}
	}
	return g.Wait()
}
