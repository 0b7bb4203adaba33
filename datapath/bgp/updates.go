package bgp

import (
	"context"
	"net/netip"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// stateOf translates gobgp's names; its Connect does not occur.
var stateOf = map[api.PeerState_SessionState]State{
	api.PeerState_IDLE:        Idle,
	api.PeerState_ACTIVE:      Active,
	api.PeerState_OPENSENT:    OpenSent,
	api.PeerState_OPENCONFIRM: OpenConfirm,
	api.PeerState_ESTABLISHED: Established,
}

// handle takes in one event of gobgp's and plans a pass over the routes.
func (s *speaker) handle(ctx context.Context, ev *api.WatchEventResponse) {
	if p := ev.GetPeer(); p != nil {
		s.peerChanged(ctx, p.GetPeer().GetState())
	}
	for _, path := range ev.GetTable().GetPaths() {
		if path.Nlri == nil { // gobgp's form of an End-of-RIB
			s.endOfRIB(path)
			continue
		}
		s.bestChanged(path)
	}
	s.plan(min(settle+time.Duration(len(s.fib.learned))*settlePerRoute, kernelSettle))
}

func (s *speaker) peerChanged(ctx context.Context, now *api.PeerState) {
	addr := s.sessions.wires.peerOf(now.GetNeighborAddress())
	st, known := s.status[addr]
	state, named := stateOf[now.GetSessionState()]
	if !known || !named || st.State == state {
		return
	}
	s.sessions.wires.setWaiting(addr, state == Active)
	st.State, st.Since, st.endOfRIB = state, time.Now(), false
	s.emit(Event{Kind: EventPeer, Peer: &st.PeerStatus})
	if state == Idle {
		go func() { // it waits for gobgp's goroutines
			_ = s.sessions.hasten(ctx, addr) // else it takes gobgp's 5 s
		}()
	}
}

func (s *speaker) endOfRIB(path *api.Path) {
	if st, known := s.status[s.sessions.wires.peerOf(path.GetNeighborIp())]; known {
		st.endOfRIB = true
	}
}

// bestChanged notes the new best path to a prefix. A path without a neighbour
// is one of our own announcements, which needs no route.
func (s *speaker) bestChanged(path *api.Path) {
	var nlri api.IPAddressPrefix
	if path.Nlri.UnmarshalTo(&nlri) != nil {
		return // not an IPv4 unicast prefix
	}
	addr, err := netip.ParseAddr(nlri.Prefix)
	if err != nil {
		return
	}
	prefix := netip.PrefixFrom(addr, int(nlri.PrefixLen))
	nextHop := nextHopOf(path)
	if _, err := netip.ParseAddr(path.NeighborIp); err != nil || path.IsWithdraw || !nextHop.IsValid() {
		delete(s.fib.learned, prefix)
		return
	}
	s.fib.learned[prefix] = nextHop
}

func nextHopOf(path *api.Path) netip.Addr {
	var attr api.NextHopAttribute
	for _, a := range path.Pattrs {
		if a.MessageIs(&attr) && a.UnmarshalTo(&attr) == nil {
			nh, _ := netip.ParseAddr(attr.NextHop)
			return nh
		}
	}
	return netip.Addr{}
}
