package observe_test

import (
	"net/netip"
	"testing"

	"slipway/datapath/observe"
	"slipway/internal/testnet"
)

// Probes sent soon after each other have ports of their own, and none that the
// kernel chooses for other clients: what connection tracking remembers of one
// does not meet the next.
func TestProbesHaveFreshPorts(t *testing.T) {
	testnet.Need(t, testnet.Root)
	ns := testnet.NewNS(t)
	seen := map[uint16]bool{}
	for range 20 {
		p, err := observe.Prepare(ns, observe.Spec{Protocol: observe.ProbeTCP, To: netip.MustParseAddrPort("127.0.0.1:9")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		port := p.Packet().SPort
		if port < 61000 || seen[port] {
			t.Errorf("port %d after %v", port, seen)
		}
		seen[port] = true
	}
}
