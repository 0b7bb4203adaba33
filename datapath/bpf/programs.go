package bpf

import (
	"fmt"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/topology"
)

// Programs are one kind of tunnel's on one node, wanted or left over.
type Programs struct {
	// Kind is "ipip" or "udp"; Command says in one line what they do.
	Kind, Command          string
	wanted                 bool
	attached, left         func() (bool, error)
	attachThem, detachThem func() error
}

// ProgramsOf are those of all kinds that a node may have. What a node no longer
// wants is looked for on the tunnels' devices and on its underlay device, where
// they outlive the tunnel's.
func ProgramsOf(ns *netns.NS, cfg datapath.NodeConfig, underlay string) []Programs {
	return []Programs{programsOfIPIP(ns, cfg, underlay), programsOfUDP(ns, cfg, underlay)}
}

func programsOfIPIP(ns *netns.NS, cfg datapath.NodeConfig, underlay string) Programs {
	former := datapath.IPIPTunnel{Device: "tunl0", Underlay: underlay}
	p := Programs{
		Kind: "ipip", Command: "tc filter: eBPF IPIP encapsulation on tunl0, decapsulation on " + underlay,
		wanted:     cfg.IPIP != nil && cfg.IPIP.Implementation == topology.IPIPeBPF,
		left:       func() (bool, error) { return IPIPLeft(ns, former) },
		detachThem: func() error { return DetachIPIP(ns, former) },
	}
	if p.wanted {
		p.attached = func() (bool, error) { return IPIPAttached(ns, *cfg.IPIP) }
		p.attachThem = func() error { return AttachIPIP(ns, *cfg.IPIP) }
	}
	return p
}

func programsOfUDP(ns *netns.NS, cfg datapath.NodeConfig, underlay string) Programs {
	former := datapath.UDPTunnel{Device: "flannel0", Underlay: underlay}
	p := Programs{
		Kind: "udp", Command: "tc filter: eBPF UDP encapsulation on flannel0, decapsulation on " + underlay,
		wanted:     cfg.UDPTunnel != nil && cfg.UDPTunnel.Implementation == topology.UDPeBPF,
		left:       func() (bool, error) { return UDPLeft(ns, former) },
		detachThem: func() error { return DetachUDP(ns, former) },
	}
	if p.wanted {
		p.Command += fmt.Sprintf(", %d leases", len(cfg.UDPTunnel.Leases))
		p.attached = func() (bool, error) { return UDPAttached(ns, *cfg.UDPTunnel) }
		p.attachThem = func() error { return AttachUDP(ns, *cfg.UDPTunnel) }
	}
	return p
}

// Audit says whether the programs have to come or go, or to be loaded again.
func (p Programs) Audit() (change datapath.ChangeAction, needed bool, err error) {
	if !p.wanted {
		left, err := p.left()
		return datapath.Remove, left, err
	}
	on, err := p.attached()
	if err != nil || on {
		return "", false, err
	}
	return datapath.Add, true, nil
}

// Follow does what Audit says.
func (p Programs) Follow(action datapath.ChangeAction) error {
	if action == datapath.Remove {
		return p.detachThem()
	}
	return p.attachThem()
}
