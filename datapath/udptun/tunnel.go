package udptun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// Tunnel is one node's end of the flannel UDP network. Many live in one process:
// a tunnel without traffic holds two descriptors and neither a thread of its own
// nor buffers.
type Tunnel struct {
	cfg    datapath.UDPTunnel
	log    *slog.Logger
	uso    bool
	leases atomic.Pointer[leaseTable]
	counters

	// The descriptors are in use while Run lasts; Close waits for its end.
	deviceFD, socketFD int

	mu       sync.Mutex
	running  chan struct{} // closed when Run has ended; nil before the first Run
	stop     func()        // ends Run
	closed   bool
	stopping atomic.Bool
}

var errRunning = errors.New("tunnel is running already")

// Open attaches to the TUN device cfg.Device inside ns, or creates it (persistent,
// with cfg.MTU; addresses, routes and setting it up are the caller's) if it is not
// there, binds UDP cfg.Local there and takes cfg.Leases. It starts nothing:
// packets move while [Tunnel.Run] runs. An implementation other than simple means
// batched.
func Open(ns *netns.NS, cfg datapath.UDPTunnel, log *slog.Logger) (*Tunnel, error) {
	t := &Tunnel{cfg: cfg, log: log.With("device", cfg.Device, "netns", ns.Name())}
	err := ns.Do(func() error {
		var err error
		if t.deviceFD, t.uso, err = openDevice(cfg); err != nil {
			return err
		}
		if t.socketFD, err = openSocket(cfg.Local, cfg.Implementation != topology.UDPSimple); err != nil {
			return errors.Join(err, os.NewSyscallError("close", unix.Close(t.deviceFD)))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open UDP tunnel in %s: %w", ns.Name(), err)
	}
	if err := awaitCarrier(ns, cfg.Device); err != nil {
		return nil, errors.Join(fmt.Errorf("open UDP tunnel in %s: %w", ns.Name(), err), t.Close())
	}
	t.SetLeases(cfg.Leases)
	return t, nil
}

// carrierTimeout bounds how long the kernel may take to let the device send.
const carrierTimeout = 3 * time.Second

func awaitCarrier(ns *netns.NS, device string) error {
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(context.Background(), carrierTimeout)
	defer cancel()
	return h.AwaitCarrier(ctx, device)
}

// SetLeases replaces all leases at once, also while packets move. Leases that are
// not IPv4 are left out with a warning; of two for one subnet the later counts.
func (t *Tunnel) SetLeases(leases []datapath.TunnelLease) {
	table, refused := newLeaseTable(leases)
	for _, l := range refused {
		t.log.Warn("lease is not IPv4", "subnet", l.Subnet, "remote", l.Remote)
	}
	t.leases.Store(table)
}

// Stats returns what the tunnel has done so far.
func (t *Tunnel) Stats() Stats { return t.stats() }

// Run moves packets until ctx ends, which is no error, the tunnel is closed, which
// is os.ErrClosed, or something fatal happens, such as the device being deleted.
// It may run again afterwards, but not twice at a time.
func (t *Tunnel) Run(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	done, err := t.begin(cancel)
	if err != nil {
		return fmt.Errorf("run UDP tunnel %s: %w", t.cfg.Device, err)
	}
	defer close(done)
	err = t.serve(running)
	switch {
	case err != nil && !errors.Is(err, errStopped):
		return fmt.Errorf("run UDP tunnel %s: %w", t.cfg.Device, err)
	case ctx.Err() == nil:
		return os.ErrClosed
	}
	return nil
}

// serve hands both directions to a worker until ctx ends or one fails.
func (t *Tunnel) serve(ctx context.Context) error {
	failed := make(chan error, 2) // one of each direction
	encap, decap, passes := t.directions()
	lanes := []*lane{
		{fd: t.deviceFD, d: encap, passes: passes, parks: &t.parks, failed: failed},
		{fd: t.socketFD, d: decap, passes: passes, parks: &t.parks, failed: failed},
	}
	w := nextWorker()
	if err := w.add(lanes...); err != nil {
		return err
	}
	t.parks.Add(2)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	t.stopping.Store(true)
	w.remove(lanes...)
	return err
}

// Passes of a direction before others have their turn: a simple pass is one
// packet, a batched one can be some forty full ones.
const (
	simplePasses  = 64
	batchedPasses = 16
)

func (t *Tunnel) directions() (encap, decap direction, passes int) {
	if t.cfg.Implementation == topology.UDPSimple {
		return &simpleEncap{Tunnel: t}, &simpleDecap{Tunnel: t}, simplePasses
	}
	return &batchedEncap{Tunnel: t}, &batchedDecap{Tunnel: t}, batchedPasses
}

func (t *Tunnel) begin(stop func()) (chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, os.ErrClosed
	}
	if t.running != nil {
		select {
		case <-t.running:
		default:
			return nil, errRunning
		}
	}
	t.stopping.Store(false)
	t.running, t.stop = make(chan struct{}), stop
	return t.running, nil
}

// Close ends Run, waits for it and closes the descriptors. The device stays, since
// it is persistent. Closing again does nothing.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	if t.running != nil {
		t.stop()
		<-t.running
	}
	if err := errors.Join(unix.Close(t.deviceFD), unix.Close(t.socketFD)); err != nil {
		return fmt.Errorf("close UDP tunnel %s: %w", t.cfg.Device, err)
	}
	return nil
}
