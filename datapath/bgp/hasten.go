package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// hasten shortens the rest of a peer whose session was just lost from gobgp's
// fixed 5 s (pkg/server/fsm.go, holdtimeIdle) to IdleHold. Deleting and adding
// the peer would do that too, but throw away the routes that RFC 4724 keeps for
// a restarting peer. What gobgp offers instead: a reset is the one operation
// that sets the idle hold time (its NOTIFICATION goes to a queue that the next
// change of state discards), and disabling and enabling the peer restarts the
// timer with it.
func (s *sessions) hasten(ctx context.Context, addr netip.Addr) error {
	a := s.wires.innerOf(addr).String()
	if err := s.srv.ResetPeer(ctx, &api.ResetPeerRequest{Address: a}); err != nil {
		return fmt.Errorf("hasten peer %s: %w", a, err)
	}
	err := s.setAdmin(ctx, a, api.PeerState_DOWN, func() error {
		return s.srv.DisablePeer(ctx, &api.DisablePeerRequest{Address: a})
	})
	if err == nil {
		err = s.setAdmin(ctx, a, api.PeerState_UP, func() error {
			return s.srv.EnablePeer(ctx, &api.EnablePeerRequest{Address: a})
		})
	}
	if err != nil {
		return fmt.Errorf("hasten peer %s: %w", a, err)
	}
	return nil
}

// setAdmin asks until the peer's state machine has taken the request, which
// gobgp drops without an error while an earlier one waits.
func (s *sessions) setAdmin(ctx context.Context, addr string, want api.PeerState_AdminState, ask func() error) error {
	const pause = time.Millisecond
	for ctx.Err() == nil {
		if err := ask(); err != nil {
			return err
		}
		for range 20 {
			state, found := want, false
			err := s.srv.ListPeer(ctx, &api.ListPeerRequest{Address: addr}, func(p *api.Peer) {
				state, found = p.GetState().GetAdminState(), true
			})
			if err != nil || !found || state == want {
				return err // done, or the peer was removed meanwhile
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
	}
	return ctx.Err()
}
