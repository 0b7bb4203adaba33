package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// The spec is parsed once; each node loads its own copy with its own constants.
var ipipSpec = sync.OnceValues(loadIpip)

// AttachIPIP installs encapsulation on the egress of cfg.Device and
// decapsulation on the ingress of cfg.Underlay inside ns, instead of what an
// earlier call installed. Both devices must be there; cfg.Device is a TUN that
// nothing reads. The node must forward IPv4, else the FIB gives no next hop.
//
// Unlike with kernel IPIP, outer packets pass neither netfilter's OUTPUT and
// POSTROUTING nor INPUT, and a capture on cfg.Device sees only what comes out of
// the tunnel: on the way in the packet has become another before captures look.
// The underlay device shows both ways.
func AttachIPIP(ns *netns.NS, cfg datapath.IPIPTunnel) error {
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
	var programs ipipObjects
	if err := loadIPIP(&programs, cfg, tunnel, underlay); err != nil {
		return fmt.Errorf("load IPIP programs for %s: %w", ns.Name(), err)
	}
	defer programs.Close() //nolint:errcheck // the filters hold what they need
	details := describeIPIP(cfg, tunnel, underlay)
	// First take in what others may already send, then send.
	if err := attach(h, underlay, decapPlace, details, programs.IpipDecap); err != nil {
		return err
	}
	if err := attach(h, tunnel, encapPlace, details, programs.IpipEncap); err != nil {
		return errors.Join(err, detach(h, underlay, decapPlace))
	}
	return nil
}

func loadIPIP(into *ipipObjects, cfg datapath.IPIPTunnel, tunnel, underlay netlink.Link) error {
	if !cfg.Local.Is4() {
		return fmt.Errorf("local address %s is not IPv4", cfg.Local)
	}
	parsed, err := ipipSpec()
	if err != nil {
		return err
	}
	spec := parsed.Copy()
	local := cfg.Local.As4() // in memory as on the wire, as iphdr has it
	if err := errors.Join(
		spec.Variables[ipipVarLocalIp].Set(binary.NativeEndian.Uint32(local[:])),
		spec.Variables[ipipVarTunnelIfindex].Set(uint32(tunnel.Attrs().Index)),
		spec.Variables[ipipVarUnderlayIfindex].Set(uint32(underlay.Attrs().Index)),
	); err != nil {
		return err
	}
	return spec.LoadAndAssign(into, nil)
}

// describeIPIP is what the programs were loaded with, as told in the name of
// their filters, where `tc filter show` prints it.
func describeIPIP(cfg datapath.IPIPTunnel, tunnel, underlay netlink.Link) string {
	return fmt.Sprintf("local %s tunnel %d underlay %d", cfg.Local, tunnel.Attrs().Index, underlay.Attrs().Index)
}

// DetachIPIP removes what AttachIPIP installed and leaves other filters alone.
// What is already gone, device included, is no error.
func DetachIPIP(ns *netns.NS, cfg datapath.IPIPTunnel) error {
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return errors.Join(
		detachFrom(h, cfg.Device, encapPlace),
		detachFrom(h, cfg.Underlay, decapPlace),
	)
}

func detachFrom(h *nl.Handle, name string, p place) error {
	dev, ok, err := link(h, name)
	if err != nil || !ok {
		return err
	}
	return detach(h, dev, p)
}

// IPIPAttached reports whether both programs are in place and were loaded for
// this configuration.
func IPIPAttached(ns *netns.NS, cfg datapath.IPIPTunnel) (bool, error) {
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
	details := describeIPIP(cfg, tunnel, underlay)
	encap, err := find(h, tunnel, encapPlace)
	if err != nil || encap == nil || encap.Name != encapPlace.kind+" "+details {
		return false, err
	}
	decap, err := find(h, underlay, decapPlace)
	if err != nil || decap == nil || decap.Name != decapPlace.kind+" "+details {
		return false, err
	}
	return true, nil
}

// IPIPLeft reports whether either program is in place, for whatever
// configuration it was loaded.
func IPIPLeft(ns *netns.NS, cfg datapath.IPIPTunnel) (bool, error) {
	h, err := nl.At(ns)
	if err != nil {
		return false, err
	}
	defer h.Close()
	for _, at := range []struct {
		device string
		place  place
	}{{cfg.Device, encapPlace}, {cfg.Underlay, decapPlace}} {
		dev, ok, err := link(h, at.device)
		if err != nil {
			return false, err
		}
		if !ok {
			continue
		}
		if f, err := find(h, dev, at.place); err != nil || f != nil {
			return f != nil, err
		}
	}
	return false, nil
}

// Counters are what the IPIP programs of one node did since they were attached.
// A GSO packet counts as one; bytes are those of inner packets. The order of
// fields is that of enum counter in ipip.c.
type Counters struct {
	EncapPackets, EncapBytes uint64
	DecapPackets, DecapBytes uint64
	NoNextHop                uint64 // no route through the tunnel with a gateway
	NotIPv4                  uint64 // sent into the tunnel or found inside IPIP
	BadLength                uint64 // inner packet longer than the outer one
	Failed                   uint64 // the kernel refused the change
}

// ErrNotAttached reports that the node has no IPIP programs.
var ErrNotAttached = errors.New("IPIP programs are not attached")

// Stats reads the counters of the node's programs; ErrNotAttached without them.
func Stats(ns *netns.NS, cfg datapath.IPIPTunnel) (Counters, error) {
	h, err := nl.At(ns)
	if err != nil {
		return Counters{}, err
	}
	defer h.Close()
	dev, ok, err := link(h, cfg.Device)
	if err != nil {
		return Counters{}, err
	}
	if !ok {
		return Counters{}, fmt.Errorf("counters of %s in %s: %w", cfg.Device, ns.Name(), ErrNotAttached)
	}
	f, err := find(h, dev, encapPlace)
	if err != nil {
		return Counters{}, err
	}
	if f == nil {
		return Counters{}, fmt.Errorf("counters of %s in %s: %w", cfg.Device, ns.Name(), ErrNotAttached)
	}
	var c Counters
	err = sumCounters(ebpf.ProgramID(f.Id), []*uint64{
		&c.EncapPackets, &c.EncapBytes, &c.DecapPackets, &c.DecapBytes,
		&c.NoNextHop, &c.NotIPv4, &c.BadLength, &c.Failed,
	})
	if err != nil {
		return Counters{}, fmt.Errorf("counters of %s in %s: %w", cfg.Device, ns.Name(), err)
	}
	return c, nil
}

// sumCounters adds up, over all CPUs, the counters of the program's map into the
// fields, in the map's order.
func sumCounters(id ebpf.ProgramID, fields []*uint64) error {
	m, err := counterMap(id)
	if err != nil {
		return err
	}
	defer m.Close() //nolint:errcheck // read only
	for i, field := range fields {
		var perCPU []uint64
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return fmt.Errorf("counter %d: %w", i, err)
		}
		for _, n := range perCPU {
			*field += n
		}
	}
	return nil
}

func counterMap(id ebpf.ProgramID) (*ebpf.Map, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer prog.Close() //nolint:errcheck // read only
	info, err := prog.Info()
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", id, err)
	}
	maps, _ := info.MapIDs()
	for _, mapID := range maps {
		m, err := ebpf.NewMapFromID(mapID)
		if err != nil {
			return nil, fmt.Errorf("open map %d: %w", mapID, err)
		}
		if m.Type() == ebpf.PerCPUArray {
			return m, nil
		}
		_ = m.Close()
	}
	return nil, fmt.Errorf("program %d has no counters", id)
}
