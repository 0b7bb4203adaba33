package bpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

var udpSpec = sync.OnceValues(loadUdp)

// AttachUDP installs encapsulation on the egress of cfg.Device, with the leases of
// cfg, and decapsulation on the ingress of cfg.Underlay inside ns, instead of what
// an earlier call installed: a change of leases is another call, and no packet
// meets half of them. Both devices must be there; cfg.Device is an external
// VXLAN-GPE device with the destination port of cfg.Local ([nl.AddExternalGPE]).
//
// On the way out packets pass neither netfilter's OUTPUT and POSTROUTING nor
// captures on cfg.Device, as with [AttachIPIP]. On the way in they pass
// PREROUTING and INPUT, 8 bytes longer than on the wire.
func AttachUDP(ns *netns.NS, cfg datapath.UDPTunnel) error {
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	tunnel, err := mustLink(h, cfg.Device)
	if err != nil {
		return err
	}
	underlay, err := mustLink(h, cfg.Underlay)
	if err != nil {
		return err
	}
	var programs udpObjects
	if err := loadUDP(&programs, cfg, tunnel, underlay); err != nil {
		return fmt.Errorf("load UDP tunnel programs for %s: %w", ns.Name(), err)
	}
	defer programs.Close() //nolint:errcheck // the filters hold what they need
	details := describeUDP(cfg, tunnel, underlay)
	if err := attach(h, underlay, udpDecapPlace, details, programs.UdpDecap); err != nil {
		return err
	}
	if err := attach(h, tunnel, udpEncapPlace, details, programs.UdpEncap); err != nil {
		return errors.Join(err, detach(h, underlay, udpDecapPlace))
	}
	return nil
}

func loadUDP(into *udpObjects, cfg datapath.UDPTunnel, tunnel, underlay netlink.Link) error {
	if !cfg.Local.Addr().Is4() {
		return fmt.Errorf("local address %s is not IPv4", cfg.Local.Addr())
	}
	parsed, err := udpSpec()
	if err != nil {
		return err
	}
	spec := parsed.Copy()
	spec.Maps[udpMapUdpLeases].MaxEntries = uint32(max(1, len(cfg.Leases))) //nolint:gosec // one per node
	if err := errors.Join(
		spec.Variables[udpVarLocalIp].Set(onWire(cfg.Local.Addr())),
		spec.Variables[udpVarLocalPort].Set(portOnWire(cfg.Local.Port())),
		spec.Variables[udpVarTunnelIfindex].Set(uint32(tunnel.Attrs().Index)),
		spec.Variables[udpVarUnderlayIfindex].Set(uint32(underlay.Attrs().Index)),
	); err != nil {
		return err
	}
	if err := spec.LoadAndAssign(into, nil); err != nil {
		return err
	}
	for _, l := range cfg.Leases {
		if err := putLease(into.UdpLeases, l); err != nil {
			return errors.Join(err, into.Close())
		}
	}
	return nil
}

func putLease(m *ebpf.Map, l datapath.TunnelLease) error {
	if !l.Subnet.IsValid() || !l.Subnet.Addr().Is4() || !l.Remote.Addr().Is4() {
		return fmt.Errorf("lease %s of %s is not IPv4", l.Subnet, l.Remote)
	}
	key := udpSubnet{Bits: uint32(l.Subnet.Bits()), Addr: onWire(l.Subnet.Masked().Addr())} //nolint:gosec // 0 to 32
	if err := m.Put(key, udpRemote{Addr: onWire(l.Remote.Addr()), Port: portOnWire(l.Remote.Port())}); err != nil {
		return fmt.Errorf("lease %s: %w", l.Subnet, err)
	}
	return nil
}

// onWire is an IPv4 address as a number that is in memory what it is on the wire.
func onWire(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func portOnWire(p uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p))
}

// describeUDP is what the programs were loaded with, as told in the names of their
// filters; of the leases, which may be thousands, their number and a sum.
func describeUDP(cfg datapath.UDPTunnel, tunnel, underlay netlink.Link) string {
	leases := slices.SortedFunc(slices.Values(cfg.Leases), func(a, b datapath.TunnelLease) int {
		return cmp.Or(a.Subnet.Compare(b.Subnet), a.Remote.Compare(b.Remote))
	})
	sum := fnv.New64a()
	for _, l := range leases {
		fmt.Fprintln(sum, l.Subnet, l.Remote)
	}
	return fmt.Sprintf("local %s tunnel %d underlay %d leases %d sum %016x", cfg.Local, tunnel.Attrs().Index, underlay.Attrs().Index, len(leases), sum.Sum64())
}

// udpPlaces are where the programs of a UDP tunnel sit.
func udpPlaces(cfg datapath.UDPTunnel) []devicePlace {
	return []devicePlace{{cfg.Device, udpEncapPlace}, {cfg.Underlay, udpDecapPlace}}
}

// DetachUDP removes what AttachUDP installed and leaves other filters alone. What
// is already gone, device included, is no error.
func DetachUDP(ns *netns.NS, cfg datapath.UDPTunnel) error {
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	var errs []error
	for _, p := range udpPlaces(cfg) {
		errs = append(errs, detachFrom(h, p.device, p.place))
	}
	return errors.Join(errs...)
}

// UDPAttached reports whether both programs are in place and were loaded for this
// configuration, leases included.
func UDPAttached(ns *netns.NS, cfg datapath.UDPTunnel) (bool, error) {
	h, err := nl.At(ns)
	if err != nil {
		return false, err
	}
	defer h.Close()
	tunnel, ok, err := link(h, cfg.Device)
	if err != nil || !ok {
		return false, err
	}
	underlay, ok, err := link(h, cfg.Underlay)
	if err != nil || !ok {
		return false, err
	}
	details := describeUDP(cfg, tunnel, underlay)
	for _, p := range udpPlaces(cfg) {
		f, err := p.find(h)
		if err != nil || f == nil || f.Name != p.kind+" "+details {
			return false, err
		}
	}
	return true, nil
}

// UDPLeft reports whether either program is in place, for whatever configuration
// it was loaded.
func UDPLeft(ns *netns.NS, cfg datapath.UDPTunnel) (bool, error) {
	h, err := nl.At(ns)
	if err != nil {
		return false, err
	}
	defer h.Close()
	for _, p := range udpPlaces(cfg) {
		if f, err := p.find(h); err != nil || f != nil {
			return f != nil, err
		}
	}
	return false, nil
}

// UDPCounters are what the programs of one node's UDP tunnel did since they were
// attached. A GSO packet counts as one; bytes are those of inner packets. The
// order of fields is that of enum counter in udp.c.
type UDPCounters struct {
	EncapPackets, EncapBytes uint64
	DecapPackets, DecapBytes uint64
	NoLease                  uint64 // for a node that is not known
	Unreachables             uint64 // ICMP answers to those
	TTLExpired               uint64
	NotIPv4                  uint64 // sent into the tunnel or found in a datagram
	BadLength                uint64 // header and packet disagree
	TooLong                  uint64 // a super-packet over 65499 bytes
	Coalesced                uint64 // a super-datagram of several packets
	Failed                   uint64 // the kernel refused the change
}

// ErrNoUDPPrograms reports that the node has no programs of a UDP tunnel.
var ErrNoUDPPrograms = errors.New("UDP tunnel programs are not attached")

// UDPStats reads the counters of the node's programs; ErrNoUDPPrograms without them.
func UDPStats(ns *netns.NS, cfg datapath.UDPTunnel) (UDPCounters, error) {
	h, err := nl.At(ns)
	if err != nil {
		return UDPCounters{}, err
	}
	defer h.Close()
	f, err := devicePlace{cfg.Device, udpEncapPlace}.find(h)
	if err == nil && f == nil {
		err = ErrNoUDPPrograms
	}
	if err != nil {
		return UDPCounters{}, fmt.Errorf("counters of %s in %s: %w", cfg.Device, ns.Name(), err)
	}
	var c UDPCounters
	err = sumCounters(ebpf.ProgramID(f.Id), []*uint64{
		&c.EncapPackets, &c.EncapBytes, &c.DecapPackets, &c.DecapBytes, &c.NoLease, &c.Unreachables,
		&c.TTLExpired, &c.NotIPv4, &c.BadLength, &c.TooLong, &c.Coalesced, &c.Failed,
	})
	if err != nil {
		return UDPCounters{}, fmt.Errorf("counters of %s in %s: %w", cfg.Device, ns.Name(), err)
	}
	return c, nil
}
