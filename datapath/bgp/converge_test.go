package bgp_test

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/testnet"
)

// startAll starts speakers at the same time, so that who dials first is chance.
func startAll(nodes []*node) {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		p, err := startIn(n.t.Context(), n.t, n.ns)
		must(n.t, err)
		n.p = p
		all.Go(func() { errs[i] = p.Configure(n.cfg) })
	}
	all.Wait()
	for i, n := range nodes {
		must(n.t, errs[i])
	}
}

func TestMeshOfTenConverges(t *testing.T) {
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 10)
	startAll(nodes)
	for i, n := range nodes {
		n.wait("full mesh", synced(9, 9))
		if diff := cmp.Diff(direct(i+1, 10), n.routes()); diff != "" {
			t.Errorf("node%d's routes (-want +got):\n%s", i+1, diff)
		}
	}
}

// Two reflectors give every client each route twice, with the announcing node
// as its next hop; when one leaves nothing is missing.
func TestTwoReflectorsConvergeAndOneIsEnough(t *testing.T) {
	testnet.Need(t, testnet.Root)
	const n, reflectors = 10, 2
	nodes := mesh(t, n)
	for i, node := range nodes {
		node.cfg.Peers = nil
		if i < reflectors {
			node.cfg.ClusterID = addr(i + 1)
		}
		for j := range nodes {
			if j == i || i >= reflectors && j >= reflectors {
				continue
			}
			p := peer(j+1, i < j) // as in a mesh, the higher number dials
			p.ReflectorClient = i < reflectors && j >= reflectors
			node.cfg.Peers = append(node.cfg.Peers, p)
		}
	}
	startAll(nodes)
	for i, node := range nodes {
		sessions := reflectors
		if i < reflectors {
			sessions = n - 1
		}
		node.wait("reflected routes", synced(sessions, n-1))
		if diff := cmp.Diff(direct(i+1, n), node.routes()); diff != "" {
			t.Errorf("node%d's routes (-want +got):\n%s", i+1, diff)
		}
	}
	nodes[0].stop()
	for i, node := range nodes[reflectors:] {
		node.wait("one reflector", func(s bgp.Status) bool { return s.Sync.Established == 1 && s.Sync.Routes == n-2 })
		want := slices.DeleteFunc(direct(i+reflectors+1, n), func(r string) bool { return strings.HasPrefix(r, block(1).String()) })
		if diff := cmp.Diff(want, node.routes()); diff != "" {
			t.Errorf("node%d's routes without node1 (-want +got):\n%s", i+reflectors+1, diff)
		}
	}
}

// Who is no peer gets no connection, neither to the speaker nor, past it, to
// gobgp; and the port where gobgp waits lets nobody take a peer's place.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 3)
	a, stranger := nodes[0], nodes[2]
	a.cfg = meshConfig(1, 2)
	a.start()
	for _, to := range []string{"192.0.2.1:179", "192.0.2.1:10179"} {
		var conn net.Conn
		must(t, stranger.ns.Do(func() (err error) {
			conn, err = net.Dial("tcp4", to)
			return err
		}))
		must(t, conn.SetDeadline(time.Now().Add(deadline)))
		said, err := io.ReadAll(conn)
		if err != nil && strings.Contains(err.Error(), "timeout") || len(said) > 0 {
			t.Errorf("%s says %q to a stranger: %v", to, said, err)
		}
		_ = conn.Close()
	}
	nodes[1].cfg = meshConfig(2, 2)
	nodes[1].start()
	a.wait("the peer", synced(1, 1))
}

// Two speakers that both dial end up with a session.
func TestBothSidesDial(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 2)
	for _, n := range nodes {
		n.cfg.Peers = []datapath.Peer{n.cfg.Peers[0]}
		n.cfg.Peers[0].Passive = false
	}
	startAll(nodes)
	for i, n := range nodes {
		n.wait("session", synced(1, 1))
		if diff := cmp.Diff(direct(i+1, 2), n.routes()); diff != "" {
			t.Errorf("node%d's routes (-want +got):\n%s", i+1, diff)
		}
	}
}

// A peer that changes its address is another peer, and the old one's session
// goes at once.
func TestPeerMovesToAnotherAddress(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 3)
	for i, n := range nodes[:2] {
		n.cfg = meshConfig(i+1, 2)
	}
	startAll(nodes[:2])
	a := nodes[0]
	a.wait("node2", synced(1, 1))
	a.cfg.Peers[0].Address = netip.MustParseAddr("192.0.2.3")
	must(t, a.p.Configure(a.cfg))
	nodes[1].wait("loss of node1", func(s bgp.Status) bool { return s.Sync.Established == 0 && s.Sync.Routes == 0 })
	c := nodes[2]
	c.cfg.Peers = c.cfg.Peers[:1]
	c.start()
	a.wait("node3", synced(1, 1))
	if diff := cmp.Diff([]string{block(3).String() + " via 192.0.2.3 dev eth0"}, a.routes()); diff != "" {
		t.Errorf("node1's routes (-want +got):\n%s", diff)
	}
}
