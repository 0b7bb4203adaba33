package running

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"

	"slipway/datapath"
	"slipway/datapath/ipiptun"
	"slipway/datapath/udptun"
	"slipway/internal/netns"
	"slipway/topology"
)

// Tunnel is one node's user-space tunnel, of either kind.
type Tunnel struct {
	UDP  *datapath.UDPTunnel
	IPIP *datapath.IPIPTunnel
}

// TunnelOf is the tunnel of a configuration that has to run in user space; nil
// if the kernel does it all.
func TunnelOf(cfg datapath.NodeConfig) *Tunnel {
	switch {
	case cfg.UDPTunnel != nil && cfg.UDPTunnel.Implementation != topology.UDPeBPF:
		return &Tunnel{UDP: cfg.UDPTunnel}
	case cfg.IPIP != nil && cfg.IPIP.Implementation == topology.IPIPUserspace:
		return &Tunnel{IPIP: cfg.IPIP}
	default:
		return nil
	}
}

// onlyLeasesDiffer reports whether a running UDP tunnel can take the new
// configuration without being opened again.
func (t Tunnel) onlyLeasesDiffer(o Tunnel) bool {
	if t.UDP == nil || o.UDP == nil || o.IPIP != nil {
		return false
	}
	x, y := *t.UDP, *o.UDP
	x.Leases, y.Leases = nil, nil
	return reflect.DeepEqual(x, y)
}

// OpenTunnel is a tunnel that runs: its pump is another's to start.
type OpenTunnel struct {
	Pump
	// Stats are what it has counted so far; nil: it does not count.
	Stats  func() any
	config Tunnel
	udp    *udptun.Tunnel
}

// Open opens a tunnel's device and socket in a namespace, which may be closed
// afterwards.
func (t Tunnel) Open(ns *netns.NS, log *slog.Logger) (*OpenTunnel, error) {
	if t.IPIP != nil {
		p, err := ipiptun.Open(ns, *t.IPIP, log)
		if err != nil {
			return nil, err
		}
		return &OpenTunnel{Pump: p, config: t}, nil
	}
	p, err := udptun.Open(ns, *t.UDP, log)
	if err != nil {
		return nil, err
	}
	return &OpenTunnel{Pump: p, Stats: func() any { return p.Stats() }, config: t, udp: p}, nil
}

// Take takes a changed configuration while it runs; false means that the tunnel
// has to be opened again.
func (o *OpenTunnel) Take(to Tunnel) bool {
	if !o.config.onlyLeasesDiffer(to) {
		return false
	}
	o.udp.SetLeases(to.UDP.Leases)
	o.config = to
	return true
}

// Pump is what moves packets until its context ends.
type Pump interface {
	Run(ctx context.Context) error
	Close() error
}

// RunPump runs p until ctx ends or it is stopped, and closes it. An end that nobody
// asked for is told to failed. done is closed at the end, after after.
func RunPump(ctx context.Context, what string, p Pump, failed func(error), after func()) (done <-chan struct{}, stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		err := p.Run(ctx)
		if ctx.Err() == nil {
			failed(err)
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
