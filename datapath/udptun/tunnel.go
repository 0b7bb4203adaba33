package udptun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// Tunnel is one node's end of the flannel UDP network. Many live in one process:
// a tunnel without traffic holds two descriptors, two parked goroutines and no
// buffers.
type Tunnel struct {
	cfg    datapath.UDPTunnel
	log    *slog.Logger
	uso    bool
	leases atomic.Pointer[leaseTable]
	counters

	// The descriptors are used directly while Run lasts; Close waits for its end.
	device, socket     *os.File
	deviceFD, socketFD int
	deviceRaw          syscall.RawConn
	socketRaw          syscall.RawConn

	mu       sync.Mutex
	running  chan struct{} // closed when Run has ended; nil before the first Run
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
		t.device = os.NewFile(uintptr(t.deviceFD), cfg.Device)
		if t.socketFD, err = openSocket(cfg.Local, cfg.Implementation != topology.UDPSimple); err != nil {
			return errors.Join(err, t.device.Close())
		}
		t.socket = os.NewFile(uintptr(t.socketFD), cfg.Local.String())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open UDP tunnel in %s: %w", ns.Name(), err)
	}
	if t.deviceRaw, err = t.device.SyscallConn(); err == nil {
		t.socketRaw, err = t.socket.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open UDP tunnel in %s: %w", ns.Name(), err), t.Close())
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
	done, err := t.begin()
	if err != nil {
		return fmt.Errorf("run UDP tunnel %s: %w", t.cfg.Device, err)
	}
	defer close(done)
	group, gctx := errgroup.WithContext(ctx)
	stopped := make(chan struct{})
	context.AfterFunc(gctx, func() {
		defer close(stopped)
		t.stop()
	})
	encap, decap := t.directions()
	group.Go(func() error { return t.pump(t.deviceRaw, encap) })
	group.Go(func() error { return t.pump(t.socketRaw, decap) })
	err = group.Wait() // ends gctx in any case, so that the stop comes
	<-stopped
	switch {
	case err != nil && !errors.Is(err, errStopped):
		return fmt.Errorf("run UDP tunnel %s: %w", t.cfg.Device, err)
	case ctx.Err() == nil:
		return os.ErrClosed
	}
	return nil
}

func (t *Tunnel) directions() (encap, decap direction) {
	if t.cfg.Implementation == topology.UDPSimple {
		return &simpleEncap{Tunnel: t}, &simpleDecap{Tunnel: t}
	}
	return &batchedEncap{Tunnel: t}, &batchedDecap{Tunnel: t}
}

func (t *Tunnel) begin() (chan struct{}, error) {
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
	if err := t.setDeadline(time.Time{}); err != nil {
		return nil, err
	}
	t.stopping.Store(false)
	t.running = make(chan struct{})
	return t.running, nil
}

// stop ends both directions, parked or not.
func (t *Tunnel) stop() {
	t.stopping.Store(true)
	if err := t.setDeadline(time.Unix(1, 0)); err != nil {
		t.log.Error("stop UDP tunnel", "error", err)
	}
}

func (t *Tunnel) setDeadline(at time.Time) error {
	return errors.Join(t.device.SetDeadline(at), t.socket.SetDeadline(at))
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
	if err := errors.Join(t.device.Close(), t.socket.Close()); err != nil {
		return fmt.Errorf("close UDP tunnel %s: %w", t.cfg.Device, err)
	}
	return nil
}
