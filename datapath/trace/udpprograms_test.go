package trace_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/topology"
)

// programmed makes the plan's UDP tunnels ones of eBPF programs.
func programmed(t *testing.T) *planned {
	t.Helper()
	n := plan(t, topology.FlannelUDP)
	for _, m := range n.snap.Nodes {
		st := n.states[m.Name]
		if st == nil || st.UDPTunnel == nil {
			continue
		}
		st.UDPTunnel.Implementation = topology.UDPeBPF
		st.Device("flannel0").Egress = []string{"slipway-udp-encap local 192.0.2.1:8285"}
		st.Device("eth0").Ingress = []string{"slipway-udp-decap local 192.0.2.1:8285"}
	}
	return n
}

// Programs carry what processes do: everything arrives, encapsulated by flannel0
// and past the sender's netfilter.
func TestUDPPrograms(t *testing.T) {
	n := programmed(t)
	for _, from := range []string{"default/client", "default/web-0", "node01", "node02"} {
		for _, p := range n.snap.Pods {
			n.delivered(from, ping(p.Address))
		}
		for _, m := range n.snap.Nodes {
			n.delivered(from, ping(m.Address))
		}
		n.shared(from, tcp(serviceIP, servicePort))
	}
	b := n.only("default/client", ping(n.podAddress("web-0")))
	var at []string
	for _, h := range b.Hops {
		if h.Place == "node01" && h.Packet.Outer != nil {
			at = append(at, fmt.Sprint(h.Stage, " ", h.Device, " ", h.Packet.TTL))
		}
	}
	// 64 of the pod, less one by the node that forwards, less one by the tunnel.
	if diff := cmp.Diff([]string{"encap flannel0 62", "egress eth0 62"}, at); diff != "" {
		t.Error(diff)
	}
	if last := b.Hops[len(b.Hops)-1].Packet.TTL; last != 60 {
		t.Errorf("the packet arrives with TTL %d, want 60: forwarded twice, and through both ends of the tunnel", last)
	}

	// A datagram for the port is the program's, whoever sent it.
	far, _ := n.snap.NodeByName("node02")
	p := tcp(far.Address, 8285)
	p.Proto = "udp"
	if b := n.only("node01", p); b.Verdict != trace.Unknown || b.Cause == nil || b.Cause.Place != "node02" {
		t.Errorf("a datagram for port 8285: %s, %s", b.Verdict, cause(b.Cause))
	}
}

func TestUDPProgramsGone(t *testing.T) {
	for where, harm := range map[string]func(*datapath.NetState){
		"node01": func(st *datapath.NetState) { st.Device("flannel0").Egress = nil },
		"node02": func(st *datapath.NetState) { st.Device("eth0").Ingress = nil },
	} {
		n := programmed(t)
		n.states[where].UDPTunnel.Running = false
		harm(n.states[where])
		b := n.only("default/client", ping(n.podAddress("web-0")))
		if b.Verdict != trace.Dropped || b.Cause == nil || b.Cause.Reason != trace.ReasonTunnelDown || b.Cause.Place != where {
			t.Errorf("without the programs of %s: %s, %s", where, b.Verdict, cause(b.Cause))
		}
	}
}

func TestUDPProgramsWithoutLease(t *testing.T) {
	n := programmed(t)
	n.states["node01"].UDPTunnel.Leases = nil
	b := n.only("default/client", tcp(n.podAddress("web-0"), 80))
	if b.Verdict != trace.Rejected || b.Cause == nil || b.Cause.Reason != trace.ReasonNoLease {
		t.Errorf("%s, %s", b.Verdict, cause(b.Cause))
	}
}

// Programs that are there, but not all or not the right ones, may do anything.
func TestUDPProgramsInDoubt(t *testing.T) {
	n := programmed(t)
	n.states["node01"].UDPTunnel.Running = false
	if b := n.only("default/client", ping(n.podAddress("web-0"))); b.Verdict != trace.Unknown {
		t.Errorf("%s, %s", b.Verdict, cause(b.Cause))
	}
}
