package trace_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/topology"
)

var modes = []topology.ModeName{topology.FlannelUDP, topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoBGP, topology.CalicoIPIP}

// TestHealthy is that everything reaches everything where nothing is broken.
func TestHealthy(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			n := plan(t, mode)
			sources := []string{"default/client", "default/web-0", "node01", "node02", "master01"}
			for _, from := range sources {
				for _, p := range n.snap.Pods {
					n.delivered(from, ping(p.Address))
					if p.Name != "client" {
						n.delivered(from, tcp(p.Address, 80))
						n.delivered(from, datapath.Packet{Proto: "udp", Dst: p.Address, SPort: 40000, DPort: 80})
					}
				}
				for _, m := range n.snap.Nodes {
					n.delivered(from, ping(m.Address))
				}
				n.delivered(from, ping(netip.MustParseAddr("192.168.233.200")))
				n.shared(from, tcp(serviceIP, servicePort))
			}
			for _, m := range n.snap.Nodes[:3] {
				n.shared("external", tcp(m.Address, nodePort))
				n.shared("default/client", tcp(m.Address, nodePort))
			}
		})
	}
}

func (n *planned) delivered(from string, p datapath.Packet) {
	n.t.Helper()
	got := n.predict(from, p)
	if len(got.Branches) != 1 || got.Branches[0].Verdict != trace.Delivered {
		n.t.Errorf("%s from %s: %d branches, %s", p, from, len(got.Branches), cause(got.Branches[0].Cause))
	}
}

// shared is that a service's three endpoints get a third each.
func (n *planned) shared(from string, p datapath.Packet) {
	n.t.Helper()
	got := n.predict(from, p)
	pods := map[string]bool{}
	for _, b := range got.Branches {
		pods[b.Pod] = true
		if b.Verdict != trace.Delivered || math.Abs(b.Probability-1.0/3) > 1e-6 {
			n.t.Errorf("%s from %s to %s with probability %g: %s", p, from, b.Pod, b.Probability, cause(b.Cause))
		}
	}
	if len(pods) != 3 {
		n.t.Errorf("%s from %s goes to %v", p, from, pods)
	}
}

func cause(c *trace.Cause) string {
	if c == nil {
		return "no cause"
	}
	return fmt.Sprintf("%s at %s %s (%s): %s", c.Reason, c.Place, c.Device, c.Table, c.Text)
}

// TestWay is the hops of a ping between pods on two nodes, as the kernel's own
// tracepoints and hooks show them.
func TestWay(t *testing.T) {
	pod := func(end string) string {
		return end + " eth0 output\n" + end + " eth0 postrouting\n" + end + " eth0 egress\n"
	}
	into := func(end string) string {
		return end + " eth0 ingress\n" + end + " eth0 prerouting\n" + end + " eth0 input\n" + end + " eth0 deliver\n"
	}
	wire := "fabric node01-eth0 wire\nfabric node02-eth0 wire\n"
	client, web := pod("default/client"), into("default/web-0")
	for mode, want := range map[topology.ModeName]string{
		topology.FlannelVXLAN: client + `node01 VETH ingress
node01 cni0 prerouting
node01 cni0 ingress
node01 cni0 forward
node01 flannel.1 postrouting
node01 flannel.1 egress
node01 eth0 output
node01 eth0 postrouting
node01 eth0 egress
` + wire + `node02 eth0 ingress
node02 eth0 prerouting
node02 eth0 input
node02 flannel.1 ingress
node02 flannel.1 prerouting
node02 flannel.1 forward
node02 cni0 postrouting
node02 cni0 egress
node02 VETH egress
` + web,
		topology.CalicoIPIP: client + `node01 VETH ingress
node01 VETH prerouting
node01 VETH forward
node01 tunl0 postrouting
node01 eth0 egress
` + wire + `node02 eth0 ingress
node02 tunl0 ingress
node02 tunl0 prerouting
node02 tunl0 forward
node02 VETH postrouting
node02 VETH egress
` + web,
	} {
		t.Run(string(mode), func(t *testing.T) {
			n := plan(t, mode)
			b := n.only("default/client", ping(n.podAddress("web-0")))
			var seen []trace.Hop
			for _, h := range b.Hops {
				if !h.Hidden {
					seen = append(seen, h)
				}
			}
			got := strings.NewReplacer(n.hostIf("client"), "VETH", n.hostIf("web-0"), "VETH").Replace(way(seen))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			last := b.Hops[len(b.Hops)-1].Packet
			if last.TTL != 62 { // two routers: the nodes
				t.Errorf("TTL %d at the end", last.TTL)
			}
		})
	}
}

// TestHeaders is what becomes of a service's addresses on the way and back.
func TestHeaders(t *testing.T) {
	n := plan(t, topology.FlannelHostGW)
	n.insert("node01", "nat", "-A OUTPUT -p tcp -d 10.96.0.20/32 -j DNAT --to-destination "+n.podAddress("web-0").String()+":80")
	b := n.only("node01", tcp(serviceIP, servicePort))
	if b.Verdict != trace.Delivered {
		t.Fatal(cause(b.Cause))
	}
	last := b.Hops[len(b.Hops)-1].Packet
	if want := netip.AddrPortFrom(n.podAddress("web-0"), 80); last.Destination() != want {
		t.Errorf("arrives for %s, want %s", last.Destination(), want)
	}
	// The source was chosen for the way to the service, before translation.
	if want := netip.MustParseAddr("192.168.233.30"); last.Src != want {
		t.Errorf("arrives from %s, want %s", last.Src, want)
	}
	back := b.Reply[len(b.Reply)-1].Packet
	if back.Source() != netip.AddrPortFrom(serviceIP, servicePort) || back.DPort != 40000 || back.Flags != "SYN,ACK" {
		t.Errorf("the answer arrives as %s %s", back, back.Flags)
	}
}
