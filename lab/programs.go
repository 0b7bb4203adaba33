package lab

import (
	"fmt"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/topology"
)

// programs are one kind of tunnel's eBPF programs on one node.
type programs struct {
	kind, command          string
	wanted                 bool
	attached, left         func() (bool, error)
	attachThem, detachThem func() error
}

// formerIPIP and formerUDP are where programs may be that a node no longer wants.
// Those on the underlay device outlive the tunnel's.
var (
	formerIPIP = datapath.IPIPTunnel{Device: "tunl0", Underlay: "eth0"}
	formerUDP  = datapath.UDPTunnel{Device: "flannel0", Underlay: "eth0"}
)

func ipipPrograms(ns *netns.NS, cfg datapath.NodeConfig) programs {
	p := programs{
		kind: "ipip", command: "tc filter: eBPF IPIP encapsulation on tunl0, decapsulation on eth0",
		wanted:     cfg.IPIP != nil && cfg.IPIP.Implementation == topology.IPIPeBPF,
		left:       func() (bool, error) { return bpf.IPIPLeft(ns, formerIPIP) },
		detachThem: func() error { return bpf.DetachIPIP(ns, formerIPIP) },
	}
	if p.wanted {
		p.attached = func() (bool, error) { return bpf.IPIPAttached(ns, *cfg.IPIP) }
		p.attachThem = func() error { return bpf.AttachIPIP(ns, *cfg.IPIP) }
	}
	return p
}

func udpPrograms(ns *netns.NS, cfg datapath.NodeConfig) programs {
	p := programs{
		kind: "udp", command: "tc filter: eBPF UDP encapsulation on flannel0, decapsulation on eth0",
		wanted:     cfg.UDPTunnel != nil && cfg.UDPTunnel.Implementation == topology.UDPeBPF,
		left:       func() (bool, error) { return bpf.UDPLeft(ns, formerUDP) },
		detachThem: func() error { return bpf.DetachUDP(ns, formerUDP) },
	}
	if p.wanted {
		p.command += fmt.Sprintf(", %d leases", len(cfg.UDPTunnel.Leases))
		p.attached = func() (bool, error) { return bpf.UDPAttached(ns, *cfg.UDPTunnel) }
		p.attachThem = func() error { return bpf.AttachUDP(ns, *cfg.UDPTunnel) }
	}
	return p
}

// audit says whether the programs have to come or go, or to be loaded again.
func (p programs) audit() (change datapath.ChangeAction, needed bool, err error) {
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

// eachProgram audits a node's programs and calls do for those that are not as
// they should be.
func (b *box) eachProgram(cfg datapath.NodeConfig, do func(programs, datapath.ChangeAction) error) (datapath.Diff, error) {
	place, err := b.machinePlace(NSOfMachine(b.lab, cfg.Node))
	if err != nil {
		return nil, err
	}
	var diff datapath.Diff
	for _, p := range []programs{ipipPrograms(place.ns, cfg), udpPrograms(place.ns, cfg)} {
		action, needed, err := p.audit()
		if err == nil && needed {
			err = do(p, action)
		}
		if err != nil {
			return diff, fmt.Errorf("node %s: %s: %w", cfg.Node, p.kind, err)
		}
		if needed {
			diff = append(diff, datapath.Change{Node: cfg.Node, Action: action, Object: "tunnel", Command: p.command})
		}
	}
	return diff, nil
}

// applyPrograms attaches the eBPF programs where they are what encapsulates, and
// takes them off where they are not.
func (b *box) applyPrograms(cfg datapath.NodeConfig) (datapath.Diff, error) {
	return b.eachProgram(cfg, func(p programs, action datapath.ChangeAction) error {
		if action == datapath.Remove {
			return p.detachThem()
		}
		return p.attachThem()
	})
}

// auditPrograms says which eBPF programs have to come or go.
func (b *box) auditPrograms(cfg datapath.NodeConfig) (datapath.Diff, error) {
	return b.eachProgram(cfg, func(programs, datapath.ChangeAction) error { return nil })
}
