package daemon

import (
	"context"
	"fmt"

	"slipway/datapath"
	"slipway/datapath/running"
	"slipway/internal/netns"
	"slipway/lab/shape"
)

// tunnelConfig is one node's user-space tunnel.
type tunnelConfig struct {
	netns string
	inode uint64
	running.Tunnel
}

func (s *server) setTunnels(ctx context.Context, d Desired) (datapath.Diff, error) {
	want := map[string]tunnelConfig{}
	for _, n := range d.Nodes {
		if n.UDPTunnel != nil || n.IPIP != nil {
			want[n.Name] = tunnelConfig{netns: n.NetNS, inode: n.Inode, Tunnel: running.Tunnel{UDP: n.UDPTunnel, IPIP: n.IPIP}}
		}
	}
	return s.tunnels.Set(ctx, want)
}

func (s *server) startTunnel(node string, c tunnelConfig) (*running.Unit[tunnelConfig], error) {
	ns, err := netns.Open(c.netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the tunnel's descriptors stay in the namespace without it
	t, err := c.Open(ns, s.cfg.Log.With("node", node))
	if err != nil {
		return nil, err
	}
	if t.Stats != nil {
		s.running.putTunnel(node, c.UDP.Device, t.Stats)
	}
	u := &running.Unit[tunnelConfig]{Config: c, Update: func(to tunnelConfig) (bool, error) {
		return to.netns == c.netns && to.inode == c.inode && t.Take(to.Tunnel), nil
	}}
	u.Done, u.Stop = s.pump("tunnel of "+node, t, func() { s.running.dropTunnel(node) })
	return u, nil
}

// pump runs p until it is stopped. An end that nobody asked for is logged and
// kept for status.
func (s *server) pump(what string, p running.Pump, after func()) (done <-chan struct{}, stop func(context.Context) error) {
	return running.RunPump(s.ctx, what, p, func(err error) {
		s.cfg.Log.Error(what+" ended by itself", "err", err)
		s.errs.add(what, fmt.Errorf("ended by itself: %w", err))
	}, after)
}

func (s *server) setRelays(ctx context.Context, d Desired) (datapath.Diff, error) {
	want := map[string]Relay{}
	for _, r := range d.Relays {
		want[r.Name] = r
	}
	return s.relays.Set(ctx, want)
}

func (s *server) startRelay(name string, r Relay) (*running.Unit[Relay], error) {
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
	u := &running.Unit[Relay]{Config: r}
	u.Update = func(to Relay) (bool, error) {
		same := r
		same.Delay = to.Delay
		if same != to {
			return false, nil
		}
		p.SetDelay(to.Delay)
		return true, nil
	}
	u.Done, u.Stop = s.pump("relay "+name, p, func() {})
	return u, nil
}
