package ipiptun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// maxPacket is the longest IPv4 packet (RFC 791); both buffers hold one.
const maxPacket = 65535

// socketBuffer is asked for on the raw socket, in bytes: some thousand full
// packets, so that a burst survives the reader's being scheduled late.
const socketBuffer = 4 << 20

// deviceQueue is the TUN's queue in packets. The kernel's 500 are 6 ms at 1
// Gbit/s, less than the reader may have to wait for a processor.
const deviceQueue = 4096

// carrierTimeout is more than the second after which link watch runs at last.
const carrierTimeout = 5 * time.Second

// Tunnel is one node's end of all its IPIP tunnels.
type Tunnel struct {
	local netip.Addr
	tun   *os.File
	wire  *os.File
	raw   syscall.RawConn // of wire
	hops  *nextHops
	log   *slog.Logger

	closing  sync.Once
	closeErr error
	count    struct{ encap, decap, noNextHop, malformed, refused atomic.Uint64 }
}

// Stats counts packets since Open.
type Stats struct {
	Encap, Decap uint64
	NoNextHop    uint64 // no route through the tunnel with a gateway
	Malformed    uint64 // no whole IPv4 packet inside
	Refused      uint64 // the kernel would not take it: no route, too long, device down
}

// Open attaches to the TUN cfg.Device, which must be there, and to protocol 4 at
// cfg.Local, both inside ns, and waits until the TUN sends. Nothing is carried
// before [Tunnel.Run].
func Open(ns *netns.NS, cfg datapath.IPIPTunnel, log *slog.Logger) (*Tunnel, error) {
	if !cfg.Local.Is4() {
		return nil, fmt.Errorf("open IPIP in %s: local address %s is not IPv4", ns.Name(), cfg.Local)
	}
	h, err := nl.At(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	index, err := prepareDevice(h, cfg.Device)
	if err != nil {
		return nil, err
	}
	hops, err := openNextHops(ns, index)
	if err != nil {
		return nil, err
	}
	t := &Tunnel{local: cfg.Local, hops: hops, log: log.With("ns", ns.Name(), "device", cfg.Device)}
	err = ns.Do(func() error {
		var err error
		if t.tun, err = openTUN(cfg.Device); err != nil {
			return err
		}
		t.wire, err = openRaw(cfg.Local)
		return err
	})
	if err == nil {
		t.raw, err = t.wire.SyscallConn()
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), carrierTimeout)
		defer cancel()
		err = h.AwaitCarrier(ctx, cfg.Device)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open IPIP in %s: %w", ns.Name(), err), t.Close())
	}
	return t, nil
}

// prepareDevice lengthens the TUN's queue and returns its index.
func prepareDevice(h *nl.Handle, name string) (int, error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s in %s: %w", name, h.NSName(), err)
	}
	if err := h.LinkSetTxQLen(l, deviceQueue); err != nil {
		return 0, fmt.Errorf("lengthen queue of %s in %s: %w", name, h.NSName(), err)
	}
	return l.Attrs().Index, nil
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to TUN %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openRaw(local netip.Addr) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_IPIP)
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_HDRINCL, 1)
	}
	if err == nil {
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up raw socket at %s: %w", local, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "ipip"), nil
}

// Run carries packets until ctx ends or Close is called, which is no error. The
// tunnel is closed when it returns.
func (t *Tunnel) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(t.hops.follow)
	g.Go(t.encapsulate)
	g.Go(t.decapsulate)
	stop := context.AfterFunc(ctx, func() { _ = t.Close() })
	defer stop()
	return errors.Join(g.Wait(), t.Close())
}

// Close ends Run and lets go of the device and the socket. The TUN stays if it
// is persistent.
func (t *Tunnel) Close() error {
	t.closing.Do(func() {
		for _, f := range []*os.File{t.tun, t.wire} {
			if f != nil {
				t.closeErr = errors.Join(t.closeErr, f.Close())
			}
		}
		t.closeErr = errors.Join(t.closeErr, t.hops.close())
	})
	return t.closeErr
}

// Stats reads the counters.
func (t *Tunnel) Stats() Stats {
	return Stats{
		Encap:     t.count.encap.Load(),
		Decap:     t.count.decap.Load(),
		NoNextHop: t.count.noNextHop.Load(),
		Malformed: t.count.malformed.Load(),
		Refused:   t.count.refused.Load(),
	}
}

// encapsulate carries packets from the TUN to the wire.
func (t *Tunnel) encapsulate() error {
	buf := make([]byte, headerLen+maxPacket)
	send := t.sender()
	for {
		n, err := t.tun.Read(buf[headerLen:])
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from tunnel device: %w", err)
		}
		inner := buf[headerLen : headerLen+n]
		if n < headerLen || inner[0]>>4 != 4 || n > maxPacket-headerLen {
			t.count.malformed.Add(1)
			continue
		}
		gw, ok := t.hops.to(netip.AddrFrom4([4]byte(inner[16:20])))
		if !ok {
			t.count.noNextHop.Add(1)
			continue
		}
		packet := buf[:headerLen+n]
		// Never 0, which asks the kernel for an identification of its own.
		putOuter(packet, uint16(1+rand.N(0xffff)), t.local, gw)
		if err := send(packet, gw); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			t.refuse("send", gw, err)
			continue
		}
		t.count.encap.Add(1)
	}
}

// sender returns a function that sends one packet. It keeps its variables
// between calls, so that none is allocated per packet.
func (t *Tunnel) sender() func(packet []byte, to netip.Addr) error {
	var (
		sa   unix.SockaddrInet4
		p    []byte
		serr error
	)
	try := func(fd uintptr) bool {
		serr = unix.Sendto(int(fd), p, 0, &sa)
		return !errors.Is(serr, unix.EAGAIN)
	}
	return func(packet []byte, to netip.Addr) error {
		p, sa.Addr = packet, to.As4()
		if err := t.raw.Write(try); err != nil {
			return err
		}
		return serr
	}
}

// decapsulate carries packets from the wire to the TUN.
func (t *Tunnel) decapsulate() error {
	buf := make([]byte, maxPacket)
	for {
		n, err := t.wire.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from raw socket: %w", err)
		}
		inner, ok := innerOf(buf[:n])
		if !ok {
			t.count.malformed.Add(1)
			continue
		}
		if _, err := t.tun.Write(inner); err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			t.refuse("deliver", t.local, err)
			continue
		}
		t.count.decap.Add(1)
	}
}

// refuse counts a packet that the kernel would not take and tells of the first.
func (t *Tunnel) refuse(what string, to netip.Addr, err error) {
	if t.count.refused.Add(1) == 1 {
		t.log.Warn("IPIP packet refused; further ones are only counted", "op", what, "to", to, "err", err)
	}
}
