package e2e

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/internal/nl"
)

// outsideCells are what a machine outside the cluster reaches. Without a local
// policy every node takes connections for every endpoint and puts its own
// address on them, so that the answers come back through it.
func outsideCells(t *testing.T, l *testLab) {
	external := l.at("external")
	for _, node := range l.nodes() {
		what := "node port of " + node.name
		a := answered(t, external, what, netip.AddrPortFrom(node.addr, clusterNodePort), l.servers())
		sees(t, external, what, a, "an address of the node that was asked", addresses(t, node)...)
	}
	t.Run("local policy", func(t *testing.T) { localCells(t, l) })
	t.Run("external IP", func(t *testing.T) { externalIPCells(t, l) })
}

// localCells are a node port with externalTrafficPolicy Local: the source is
// kept where the endpoint is, and nothing answers elsewhere.
func localCells(t *testing.T, l *testLab) {
	external, pod := l.at("external"), l.at("web-c")
	e := newEach()
	defer e.wg.Wait()
	for _, node := range l.nodes() {
		to := netip.AddrPortFrom(node.addr, localNodePort)
		if node.name == pod.node {
			a := answered(t, external, "local node port of "+node.name, to, []*place{pod})
			sees(t, external, "local node port of "+node.name, a, "the client itself, untranslated", external.addr)
			continue
		}
		e.run(func() {
			if c, err := external.dial("tcp4", to, dropPatience); err == nil {
				_ = c.Close()
				t.Errorf("TCP external → local node port of %s (%s): connected, but the only endpoint is on %s", node.name, to, pod.node)
			}
		})
	}
}

// externalIPCells reach an external IP through each node in turn, as a router
// in front of the cluster would, and from a pod.
func externalIPCells(t *testing.T, l *testLab) {
	external, to := l.at("external"), netip.AddrPortFrom(netip.MustParseAddr(externalIP), 80)
	h, err := nl.At(external.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ignoreRedirects(t, external)
	for _, node := range l.nodes() {
		if l.segmentOf(node.name) != "rack1" {
			continue // no next hop for the client, which is in the first rack
		}
		r := &netlink.Route{Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: node.addr.AsSlice()}
		if err := h.RouteReplace(r); err != nil {
			t.Fatalf("route to %s via %s: %v", externalIP, node.name, err)
		}
		what := "external IP through " + node.name
		a := answered(t, external, what, to, l.servers())
		sees(t, external, what, a, "an address of the node in between", addresses(t, node)...)
		if err := h.RouteDel(r); err != nil {
			t.Fatal(err)
		}
	}
	answered(t, l.at("client"), "external IP", to, l.servers())
}

// ignoreRedirects makes the client do as routers do (RFC 1812 §5.2.7.2). A node
// that sends a connection on to a neighbour tells the sender of the shorter
// way; one that took it would pass by the node that translates.
func ignoreRedirects(t *testing.T, p *place) {
	t.Helper()
	err := p.ns.Do(func() error {
		for _, dev := range []string{"all", "eth0"} {
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/accept_redirects", []byte("0"), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (l *testLab) segmentOf(node string) string {
	n, _ := l.st.Snapshot.NodeByName(node)
	return n.Segment
}

// emptyCells are a service without endpoints: it refuses at once, inside and
// outside, instead of leaving clients to wait.
func emptyCells(t *testing.T, l *testLab) {
	to := l.clusterIP("empty")
	for _, from := range append(l.pods(), l.nodes()...) {
		wantRefused(t, from, "service empty", to)
	}
	for _, node := range l.nodes() {
		wantRefused(t, l.at("external"), "node port of service empty on "+node.name, netip.AddrPortFrom(node.addr, emptyNodePort))
	}
}

func wantRefused(t *testing.T, from *place, what string, to netip.AddrPort) {
	t.Helper()
	c, err := from.dial("tcp4", to, answerPatience)
	if err == nil {
		_ = c.Close()
	}
	if !refused(err) {
		t.Errorf("TCP %s (%s) → %s %s: %v, want refused at once: it has no endpoints", from.name, from.node, what, to, err)
	}
}
