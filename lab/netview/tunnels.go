package netview

import (
	"context"
	"fmt"
	"slices"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/linux"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

// tunnels are those that a place has in the lab's mode; nil for what it has not.
type tunnels struct {
	udp  *datapath.UDPTunnel
	ipip *datapath.IPIPTunnel
}

func (v *View) tunnelsOf(place trace.Place) (t tunnels, err error) {
	isNode := slices.ContainsFunc(v.st.Snapshot.Nodes, func(n topology.NodeState) bool { return n.Name == place.Label && n.InDatapath() })
	if place.Pod || !isNode {
		return t, nil
	}
	t.udp, t.ipip, err = lab.PlannedTunnels(v.st, place.Label)
	return t, err
}

// connections are those that a UDP tunnel uses, whose both ends are known: what
// it carries passes as theirs, also where there is no room for another.
func (t tunnels) connections() []linux.ConntrackQuery {
	var out []linux.ConntrackQuery
	if t.udp != nil {
		for _, l := range t.udp.Leases {
			out = append(out, linux.ConntrackQuery{Proto: "udp", Src: t.udp.Local, Dst: l.Remote})
		}
	}
	return out
}

// addTunnels fills in the tunnels of a node, and whether they work.
func (v *View) addTunnels(ctx context.Context, ns *netns.NS, node string, t tunnels, st *datapath.NetState) {
	switch {
	case t.udp == nil:
	case t.udp.Implementation == topology.UDPeBPF:
		st.UDPTunnel = programmedUDP(ns, *t.udp, st)
	default:
		st.UDPTunnel = v.udpTunnel(ctx, node, *t.udp, st)
	}
	if t.ipip != nil {
		st.IPIP = v.ipipTunnel(ctx, ns, node, *t.ipip, st)
	}
}

// udpTunnel says what the daemon serves a TUN with; if it serves none, what it
// should, and why it does not.
func (v *View) udpTunnel(ctx context.Context, node string, planned datapath.UDPTunnel, st *datapath.NetState) *datapath.UDPTunnelState {
	out := &datapath.UDPTunnelState{UDPTunnel: planned}
	running, err := v.daemon.tunnel(ctx, node)
	if running.UDP != nil {
		out.UDPTunnel = *running.UDP
	}
	switch d := st.Device(out.Device); {
	case err != nil:
		out.Problem = err.Error()
	case !running.Running || running.UDP == nil:
		out.Problem = "slipwayd does not serve " + out.Device
	case d == nil:
		out.Problem = "there is no " + out.Device
	case d.Up && !d.Carrier: // a TUN has its carrier from the process that opened it
		out.Problem = "no process has " + out.Device + " open"
	default:
		out.Running = true
	}
	return out
}

// programmedUDP says whether the programs that should carry a UDP tunnel do.
func programmedUDP(ns *netns.NS, planned datapath.UDPTunnel, st *datapath.NetState) *datapath.UDPTunnelState {
	out := &datapath.UDPTunnelState{UDPTunnel: planned}
	d := st.Device(planned.Device)
	attached, err := bpf.UDPAttached(ns, planned)
	switch {
	case d == nil:
		out.Problem = "there is no " + planned.Device
	case d.VXLAN == nil || !d.VXLAN.External || d.VXLAN.Port != int(planned.Local.Port()):
		out.Problem = fmt.Sprintf("%s is not an external VXLAN-GPE device of port %d", planned.Device, planned.Local.Port())
	case err != nil:
		out.Problem = err.Error()
	case !attached:
		out.Problem = fmt.Sprintf("the BPF programs of %s and %s are not both there, or were loaded for another configuration", planned.Device, planned.Underlay)
	default:
		out.Running = true
	}
	return out
}

func (v *View) ipipTunnel(ctx context.Context, ns *netns.NS, node string, planned datapath.IPIPTunnel, st *datapath.NetState) *datapath.IPIPState {
	out := &datapath.IPIPState{IPIPTunnel: planned}
	if st.Device(planned.Device) == nil {
		out.Problem = "there is no " + planned.Device
		return out
	}
	switch planned.Implementation {
	case topology.IPIPKernel:
		out.Problem = kernelIPIP(planned, st)
	case topology.IPIPUserspace:
		out.Problem = v.relayedIPIP(ctx, node, planned)
	default:
		out.Problem = attachedIPIP(ns, planned)
	}
	out.Attached = out.Problem == ""
	return out
}

func kernelIPIP(t datapath.IPIPTunnel, st *datapath.NetState) string {
	if kind := st.Device(t.Device).Kind; kind != "ipip" {
		return fmt.Sprintf("%s is a %s device, not an ipip one", t.Device, kind)
	}
	return ""
}

func (v *View) relayedIPIP(ctx context.Context, node string, t datapath.IPIPTunnel) string {
	running, err := v.daemon.tunnel(ctx, node)
	switch {
	case err != nil:
		return err.Error()
	case !running.Running || running.IPIP == nil:
		return "slipwayd does not serve " + t.Device
	}
	return ""
}

func attachedIPIP(ns *netns.NS, t datapath.IPIPTunnel) string {
	ok, err := bpf.IPIPAttached(ns, t)
	if err != nil {
		return err.Error()
	}
	if ok {
		return ""
	}
	if left, err := bpf.IPIPLeft(ns, t); err == nil && left {
		return fmt.Sprintf("the BPF programs of %s and %s are not both there, or were loaded for another configuration", t.Device, t.Underlay)
	}
	return fmt.Sprintf("%s and %s have no BPF programs", t.Device, t.Underlay)
}
