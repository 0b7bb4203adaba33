package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/protobuf/types/known/anypb"

	"slipway/datapath"
)

// ErrIdentity reports a change of what a running speaker cannot change: AS
// number, router ID or listening address. Stop it and start another.
var ErrIdentity = errors.New("AS number, router ID and listening address of a running speaker are fixed")

var ipv4Unicast = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}

// sessions is a gobgp server, its wires to the peers, and the configuration
// that both run.
type sessions struct {
	srv       *server.BgpServer
	wires     *wires
	cfg       datapath.Speaker
	started   bool
	peers     map[netip.Addr]datapath.Peer
	announced map[netip.Prefix]bool
}

func newSessions() *sessions {
	s := &sessions{
		srv:       server.NewBgpServer(server.LoggerOption(logger{os.Stderr})),
		peers:     map[netip.Addr]datapath.Peer{},
		announced: map[netip.Prefix]bool{},
	}
	go s.srv.Serve() // gobgp has no way to end it; the process's end does
	return s
}

// configure makes the sessions and announcements equal to cfg and leaves those
// that do not change alone. emit is called with each event, from one goroutine.
func (s *sessions) configure(ctx context.Context, cfg datapath.Speaker, emit func(*api.WatchEventResponse)) error {
	if !s.started {
		if err := s.start(ctx, cfg, emit); err != nil {
			return err
		}
	}
	if cfg.ASN != s.cfg.ASN || cfg.RouterID != s.cfg.RouterID || cfg.Listen != s.cfg.Listen {
		return ErrIdentity
	}
	clusterChanged := cfg.ClusterID != s.cfg.ClusterID
	s.cfg = cfg
	return errors.Join(s.announce(ctx), s.configurePeers(ctx, clusterChanged))
}

func (s *sessions) start(ctx context.Context, cfg datapath.Speaker, emit func(*api.WatchEventResponse)) error {
	ws, err := openWires(cfg.Listen)
	if err != nil {
		return fmt.Errorf("start BGP on %s: %w", cfg.Listen, err)
	}
	defer func() {
		if !s.started {
			_ = ws.listener.Close() // the next configuration tries again
		}
	}()
	err = s.srv.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: cfg.ASN, RouterId: cfg.RouterID.String(), ListenPort: innerPort,
		ListenAddresses: []string{cfg.Listen.String()},
		Families:        []uint32{0}, // IPv4 unicast (gobgp pkg/config/oc IntToAfiSafiTypeMap)
	}})
	if err != nil {
		return fmt.Errorf("start BGP on %s: %w", cfg.Listen, err)
	}
	// One watch for everything: its events keep the order in which they
	// happened, so that an End-of-RIB comes after the routes it ends.
	err = s.srv.WatchEvent(ctx, &api.WatchEventRequest{
		Peer: &api.WatchEventRequest_Peer{},
		Table: &api.WatchEventRequest_Table{Filters: []*api.WatchEventRequest_Table_Filter{
			{Type: api.WatchEventRequest_Table_Filter_BEST},
			{Type: api.WatchEventRequest_Table_Filter_EOR},
		}},
	}, emit)
	if err != nil {
		return fmt.Errorf("watch BGP on %s: %w", cfg.Listen, err)
	}
	s.started, s.cfg, s.wires = true, cfg, ws
	go ws.accept(ctx)
	return nil
}

// announce originates the node's blocks, next hop self, and withdraws those
// that are no longer the node's.
func (s *sessions) announce(ctx context.Context) error {
	var errs []error
	for p := range s.announced {
		if slices.Contains(s.cfg.Announce, p) {
			continue
		}
		path, err := originate(p, s.cfg.Listen)
		if err == nil {
			err = s.srv.DeletePath(ctx, &api.DeletePathRequest{Path: path})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("withdraw %s: %w", p, err))
			continue
		}
		delete(s.announced, p)
	}
	for _, p := range s.cfg.Announce {
		if s.announced[p] {
			continue
		}
		path, err := originate(p, s.cfg.Listen)
		if err == nil {
			_, err = s.srv.AddPath(ctx, &api.AddPathRequest{Path: path})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("announce %s: %w", p, err))
			continue
		}
		s.announced[p] = true
	}
	return errors.Join(errs...)
}

func originate(p netip.Prefix, nextHop netip.Addr) (*api.Path, error) {
	nlri, err := anypb.New(&api.IPAddressPrefix{Prefix: p.Addr().String(), PrefixLen: uint32(p.Bits())})
	if err != nil {
		return nil, err
	}
	origin, err := anypb.New(&api.OriginAttribute{Origin: 0}) // IGP (RFC 4271 §4.3)
	if err != nil {
		return nil, err
	}
	hop, err := anypb.New(&api.NextHopAttribute{NextHop: nextHop.String()})
	if err != nil {
		return nil, err
	}
	return &api.Path{Family: ipv4Unicast, Nlri: nlri, Pattrs: []*anypb.Any{origin, hop}}, nil
}

// configurePeers adds, removes and replaces peers; a peer whose parameters did
// not change keeps its session.
func (s *sessions) configurePeers(ctx context.Context, clusterChanged bool) error {
	want := map[netip.Addr]datapath.Peer{}
	for _, p := range s.cfg.Peers {
		want[p.Address] = p
	}
	var errs []error
	for addr, have := range s.peers {
		p, keep := want[addr]
		if keep && p == have && (!clusterChanged || !p.ReflectorClient) {
			continue
		}
		if err := s.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: s.wires.innerOf(addr).String()}); err != nil {
			errs = append(errs, fmt.Errorf("remove peer %s: %w", have.Name, err))
			continue
		}
		s.wires.remove(addr)
		delete(s.peers, addr)
	}
	for _, addr := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		if _, have := s.peers[addr]; have {
			continue
		}
		inner := s.wires.add(ctx, want[addr], want[addr].ASN == s.cfg.ASN)
		if err := s.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peerConfig(want[addr], inner)}); err != nil {
			s.wires.remove(addr)
			errs = append(errs, fmt.Errorf("add peer %s: %w", want[addr].Name, err))
			continue
		}
		s.peers[addr] = want[addr]
	}
	return errors.Join(errs...)
}

// peerConfig is a peer that gobgp knows by its wire's address and waits for.
func (s *sessions) peerConfig(p datapath.Peer, inner netip.Addr) *api.Peer {
	peer := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: inner.String(), PeerAsn: p.ASN, Description: p.Name},
		Transport: &api.Transport{LocalAddress: s.cfg.Listen.String(), PassiveMode: true},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(HoldTime), KeepaliveInterval: seconds(Keepalive),
			IdleHoldTimeAfterReset: seconds(IdleHold),
		}},
		// Without the N bit of RFC 8538, so that a NOTIFICATION withdraws and
		// only a lost connection is taken for a restart.
		GracefulRestart: &api.GracefulRestart{Enabled: true, RestartTime: uint32(seconds(RestartTime))},
		AfiSafis: []*api.AfiSafi{{
			Config:            &api.AfiSafiConfig{Family: ipv4Unicast, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
		}},
	}
	if p.ReflectorClient {
		peer.RouteReflector = &api.RouteReflector{RouteReflectorClient: true}
		if s.cfg.ClusterID.IsValid() {
			peer.RouteReflector.RouteReflectorClusterId = s.cfg.ClusterID.String()
		}
	}
	return peer
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

// stop closes every session with a NOTIFICATION (Cease, Peer De-configured:
// RFC 4486 §4), which makes the peers drop what they learnt here at once.
func (s *sessions) stop(ctx context.Context) error {
	if err := s.srv.StopBgp(ctx, &api.StopBgpRequest{}); err != nil {
		return fmt.Errorf("stop BGP on %s: %w", s.cfg.Listen, err)
	}
	s.wires.drain()
	return nil
}
