package daemon

import (
	"context"
	"fmt"
	"reflect"

	"slipway/datapath"
	"slipway/datapath/ipiptun"
	"slipway/datapath/udptun"
	"slipway/internal/netns"
	"slipway/lab/shape"
)

// tunnelConfig is one node's user-space tunnel, of either kind.
type tunnelConfig struct {
	netns string
	inode uint64
	udp   *datapath.UDPTunnel
	ipip  *datapath.IPIPTunnel
}

func (s *server) setTunnels(ctx context.Context, d Desired) (datapath.Diff, error) {
	want := map[string]tunnelConfig{}
	for _, n := range d.Nodes {
		if n.UDPTunnel != nil || n.IPIP != nil {
			want[n.Name] = tunnelConfig{netns: n.NetNS, inode: n.Inode, udp: n.UDPTunnel, ipip: n.IPIP}
		}
	}
	return s.tunnels.set(ctx, want)
}

func (s *server) startTunnel(node string, c tunnelConfig) (*unit[tunnelConfig], error) {
	ns, err := netns.Open(c.netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the tunnel's descriptors stay in the namespace without it
	if c.ipip != nil {
		t, err := ipiptun.Open(ns, *c.ipip, s.cfg.Log.With("node", node))
		if err != nil {
			return nil, err
		}
		return s.runTunnel(node, c, t, nil)
	}
	t, err := udptun.Open(ns, *c.udp, s.cfg.Log.With("node", node))
	if err != nil {
		return nil, err
	}
	s.running.putTunnel(node, c.udp.Device, func() any { return t.Stats() })
	return s.runTunnel(node, c, t, func(to tunnelConfig) (bool, error) {
		if !onlyLeasesDiffer(c, to) {
			return false, nil
		}
		t.SetLeases(to.udp.Leases)
		return true, nil
	})
}

// onlyLeasesDiffer reports whether a running UDP tunnel can take the new
// configuration without being opened again.
func onlyLeasesDiffer(a, b tunnelConfig) bool {
	if a.udp == nil || b.udp == nil || a.netns != b.netns || a.inode != b.inode || b.ipip != nil {
		return false
	}
	x, y := *a.udp, *b.udp
	x.Leases, y.Leases = nil, nil
	return reflect.DeepEqual(x, y)
}

// pump is what both kinds of tunnels and the relays are.
type pump interface {
	Run(ctx context.Context) error
	Close() error
}

func (s *server) runTunnel(node string, c tunnelConfig, p pump, update func(tunnelConfig) (bool, error)) (*unit[tunnelConfig], error) {
	u := &unit[tunnelConfig]{cfg: c, update: update}
	u.done, u.stop = s.pump("tunnel of "+node, p, func() { s.running.dropTunnel(node) })
	return u, nil
}

// pump runs p until it is stopped. An end that nobody asked for is logged and
// kept for status.
func (s *server) pump(what string, p pump, after func()) (done <-chan struct{}, stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		err := p.Run(ctx)
		if ctx.Err() == nil {
			s.cfg.Log.Error(what+" ended by itself", "err", err)
			s.errs.add(what, fmt.Errorf("ended by itself: %w", err))
		}
		result = p.Close()
		after()
	}()
	return ended, func(wait context.Context) error {
		cancel()
		select {
		case <-ended:
			return result
		case <-wait.Done():
			return fmt.Errorf("stop %s: %w", what, wait.Err())
		}
	}
}

func (s *server) setRelays(ctx context.Context, d Desired) (datapath.Diff, error) {
	want := map[string]Relay{}
	for _, r := range d.Relays {
		want[r.Name] = r
	}
	return s.relays.set(ctx, want)
}

func (s *server) startRelay(name string, r Relay) (*unit[Relay], error) {
	node, err := netns.Open(r.NodeNS)
	if err != nil {
		return nil, err
	}
	defer node.Close() //nolint:errcheck // the TAPs' descriptors stay in their namespaces
	port, err := netns.Open(r.PortNS)
	if err != nil {
		return nil, err
	}
	defer port.Close() //nolint:errcheck // see above
	p, err := shape.OpenRelay(shape.Port{NS: port, Name: r.Port}, shape.Port{NS: node, Name: r.Node}, r.Delay)
	if err != nil {
		return nil, err
	}
	u := &unit[Relay]{cfg: r}
	u.update = func(to Relay) (bool, error) {
		same := r
		same.Delay = to.Delay
		if same != to {
			return false, nil
		}
		p.SetDelay(to.Delay)
		return true, nil
	}
	u.done, u.stop = s.pump("relay "+name, p, func() {})
	return u, nil
}
