package netview

import (
	"context"
	"errors"
	"strings"
	"sync"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab"
)

// space is a namespace that somebody asked for.
type space struct {
	opening sync.Once
	ns      *netns.NS
	h       *nl.Handle
	openErr error

	mu     sync.Mutex // of what follows
	read   bool
	state  *datapath.NetState
	err    error
	sketch *datapath.NetState // read in part
}

// space opens a namespace, once.
func (v *View) space(namespace string) (*space, error) {
	v.mu.Lock()
	s := v.spaces[namespace]
	if s == nil {
		s = &space{}
		v.spaces[namespace] = s
	}
	v.mu.Unlock()
	s.opening.Do(func() {
		if s.ns, s.openErr = netns.Open(namespace); s.openErr != nil {
			return
		}
		if s.h, s.openErr = nl.At(s.ns); s.openErr != nil {
			s.openErr = errors.Join(s.openErr, s.ns.Close())
		}
	})
	return s, s.openErr
}

// once reads the namespace's state unless that was done already. To have been
// interrupted is no answer that is kept.
func (s *space) once(ctx context.Context, read func() (*datapath.NetState, error)) (*datapath.NetState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read {
		return s.state, s.err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st, err := read()
	if err == nil || ctx.Err() == nil {
		s.state, s.err, s.read = st, err, true
	}
	return st, err
}

// inPart returns the state if that was read, or a sketch, which is read unless
// that was done already.
func (s *space) inPart(ctx context.Context, read func() (*datapath.NetState, error)) (*datapath.NetState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read && s.err == nil {
		return s.state, nil
	}
	if s.sketch != nil {
		return s.sketch, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st, err := read()
	s.sketch = st
	return st, err
}

// sketched is the sketch, unless the whole state was read.
func (s *space) sketched() *datapath.NetState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != nil {
		return nil
	}
	return s.sketch
}

// known is the state as far as it was asked for: nil if it was not.
func (s *space) known() (*datapath.NetState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, errors.Join(s.openErr, s.err)
}

func (s *space) close() error {
	if s.ns == nil || s.openErr != nil {
		return nil
	}
	s.h.Close()
	return s.ns.Close()
}

// fileName is a namespace's name in the lab's directory.
func fileName(labName, namespace string) string {
	return strings.TrimPrefix(namespace, lab.NSOfMachine(labName, ""))
}
