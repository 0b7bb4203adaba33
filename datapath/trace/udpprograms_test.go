package trace_test

import (
	"testing"

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

// What programs carry is not predicted, and everything else as if they were not there.
func TestUDPProgramsAreUnknown(t *testing.T) {
	n := programmed(t)
	b := n.only("default/client", ping(n.podAddress("web-0")))
	if b.Verdict != trace.Unknown || b.Cause == nil || b.Cause.Device != "flannel0" || b.Cause.Place != "node01" {
		t.Errorf("through the tunnel: %s, %s", b.Verdict, cause(b.Cause))
	}
	for _, m := range n.snap.Nodes {
		n.delivered("node01", ping(m.Address))
		n.delivered("default/client", ping(m.Address))
	}
	n.delivered("default/client", ping(n.podAddress("web-l")))

	// A datagram for the port is the program's, whoever sent it.
	far, _ := n.snap.NodeByName("node02")
	p := tcp(far.Address, 8285)
	p.Proto = "udp"
	if b := n.only("node01", p); b.Verdict != trace.Unknown || b.Cause == nil || b.Cause.Place != "node02" {
		t.Errorf("a datagram for port 8285: %s, %s", b.Verdict, cause(b.Cause))
	}
}

func TestUDPProgramsGone(t *testing.T) {
	n := programmed(t)
	st := n.states["node01"]
	st.UDPTunnel.Running, st.Device("flannel0").Egress = false, nil
	b := n.only("default/client", ping(n.podAddress("web-0")))
	if b.Verdict != trace.Dropped || b.Cause == nil || b.Cause.Reason != trace.ReasonTunnelDown || b.Cause.Place != "node01" {
		t.Errorf("without the program: %s, %s", b.Verdict, cause(b.Cause))
	}
}
