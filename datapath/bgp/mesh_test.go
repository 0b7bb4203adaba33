package bgp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

func TestMeshLearnsAndWithdraws(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 3)
	for _, n := range nodes {
		n.start()
	}
	for i, n := range nodes {
		n.wait("full mesh", synced(2, 2))
		if diff := cmp.Diff(direct(i+1, 3), n.routes()); diff != "" {
			t.Errorf("node%d's routes (-want +got):\n%s", i+1, diff)
		}
	}

	nodes[2].stop()
	if got := nodes[2].routes(); len(got) != 0 {
		t.Errorf("a speaker that was shut down left %v", got)
	}
	nodes[0].wait("withdrawal", func(s bgp.Status) bool { return s.Sync.Routes == 1 && s.Sync.Established == 1 })
	if diff := cmp.Diff(direct(1, 2), nodes[0].routes()); diff != "" {
		t.Errorf("after node3 left (-want +got):\n%s", diff)
	}
}

func TestLiveChanges(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 3)
	for i, n := range nodes[:2] {
		n.cfg = meshConfig(i+1, 2)
		n.start()
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.wait("two nodes", synced(1, 1))
	b.wait("two nodes", synced(1, 1))
	since := a.p.Status().Peers[0].Since

	// A third node joins, and node2 swaps its block for another.
	a.cfg, b.cfg = meshConfig(1, 3), meshConfig(2, 3)
	b.cfg.Announce = []netip.Prefix{block(22)}
	for _, n := range []*node{a, b} {
		must(t, n.p.Configure(n.cfg))
	}
	c.start()
	c.wait("joined", synced(2, 2))
	a.wait("third node", synced(2, 2))
	want := []string{
		fmt.Sprintf("%s via %s dev eth0", block(22), addr(2)),
		fmt.Sprintf("%s via %s dev eth0", block(3), addr(3)),
	}
	if diff := cmp.Diff(want, a.routes()); diff != "" {
		t.Errorf("node1's routes (-want +got):\n%s", diff)
	}
	if now := a.p.Status().Peers[0].Since; !now.Equal(since) {
		t.Errorf("the session with node2 was made anew: since %s, was %s", now, since)
	}

	// node3 is taken out of node1's configuration again.
	a.cfg.Peers = a.cfg.Peers[:1]
	must(t, a.p.Configure(a.cfg))
	a.wait("peer removed", synced(1, 1))
	if diff := cmp.Diff(want[:1], a.routes()); diff != "" {
		t.Errorf("node1's routes without node3 (-want +got):\n%s", diff)
	}

	other := a.cfg
	other.ASN++
	if err := a.p.Configure(other); !errors.Is(err, bgp.ErrIdentity) {
		t.Errorf("another AS number for a running speaker: %v, want ErrIdentity", err)
	}
}

// A crash is taken for a restart: nobody forgets anything, and the new speaker
// drops what is no longer announced.
func TestCrashAndRestart(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 3)
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.wait("full mesh", synced(2, 2))
	}
	c := nodes[2]
	c.kill()
	for _, n := range nodes[:2] {
		n.wait("loss of node3", func(s bgp.Status) bool { return s.Sync.Established == 1 })
	}
	for i, n := range nodes {
		if diff := cmp.Diff(direct(i+1, 3), n.routes()); diff != "" {
			t.Errorf("node%d's routes after the crash (-want +got):\n%s", i+1, diff)
		}
	}

	// While node3 is away node2's block moves; node3 still has the old route.
	nodes[1].cfg.Announce = []netip.Prefix{block(22)}
	must(t, nodes[1].p.Configure(nodes[1].cfg))
	c.start()
	c.wait("restart", synced(2, 2))
	want := []string{
		fmt.Sprintf("%s via %s dev eth0", block(1), addr(1)),
		fmt.Sprintf("%s via %s dev eth0", block(22), addr(2)),
	}
	if diff := cmp.Diff(want, c.routes()); diff != "" {
		t.Errorf("node3's routes after the restart (-want +got):\n%s", diff)
	}
	told := []string{}
	for _, r := range c.p.Status().Routes {
		told = append(told, fmt.Sprintf("%s via %s dev %s", r.Prefix, r.Via, r.Dev))
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("node3's status after the restart (-want +got):\n%s", diff)
	}
}

// The daemon is a process of its own here, so that it can be killed: its
// speaker must go, and the routes must stay.
func TestSpeakerEndsWithDaemon(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 2)
	nodes[1].start()
	daemon := exec.Command("/proc/self/exe", nodes[0].ns.Name())
	daemon.Env = append(os.Environ(), roleEnv+"=daemon")
	daemon.Stderr = os.Stderr
	out, err := daemon.StdoutPipe()
	must(t, err)
	must(t, daemon.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)

	must(t, daemon.Process.Kill())
	_ = daemon.Wait() // killed
	eventually(t, "end of the speaker", func() (bool, string) {
		return unix.Kill(pid, 0) == unix.ESRCH, fmt.Sprintf("process %d lives", pid)
	})
	if diff := cmp.Diff(direct(1, 2), nodes[0].routes()); diff != "" {
		t.Errorf("routes of the node without daemon (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(direct(2, 2), nodes[1].routes()); diff != "" {
		t.Errorf("routes of its peer (-want +got):\n%s", diff)
	}
}

func TestSpeakerLetGoKeepsRoutes(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 2)
	nodes[1].start()
	ctx, letGo := context.WithCancel(context.Background())
	p, err := startIn(ctx, t, nodes[0].ns)
	must(t, err)
	nodes[0].p = p
	must(t, p.Configure(nodes[0].cfg))
	nodes[0].wait("mesh", synced(1, 1))
	letGo()
	<-p.Done()
	if diff := cmp.Diff(direct(1, 2), nodes[0].routes()); diff != "" {
		t.Errorf("routes without a speaker (-want +got):\n%s", diff)
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	a := mesh(t, 1)[0]
	good := a.cfg
	a.cfg.Listen = netip.MustParseAddr("203.0.113.9")
	p, err := startIn(context.Background(), t, a.ns)
	must(t, err)
	err = p.Configure(a.cfg)
	if err == nil || !strings.Contains(err.Error(), "203.0.113.9:179: bind: cannot assign requested address") {
		t.Errorf("listening on an address that is not there: %v", err)
	}
	must(t, p.Configure(good)) // the speaker survives it

	silent, err := bgp.Start(context.Background(), a.ns, []string{"/proc/self/exe", "-test.run=^$"}, os.Environ(), logTo(t))
	must(t, err)
	if err := silent.Configure(good); !errors.Is(err, bgp.ErrEnded) {
		t.Errorf("a program that is no speaker: %v, want ErrEnded", err)
	}
}

// playDaemon runs node1's speaker of a mesh of two, prints the speaker's
// process number once it has a route, and waits to be killed.
func playDaemon(name string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ns, err := netns.Open(name)
	fail(err)
	env := append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, roleEnv) }), roleEnv+"=speaker")
	p, err := bgp.Start(context.Background(), ns, []string{"/proc/self/exe"}, env, slog.New(slog.DiscardHandler))
	fail(err)
	fail(p.Configure(meshConfig(1, 2)))
	fail(p.Wait(context.Background(), synced(1, 1)))
	fmt.Println(p.Pid())
	<-p.Done()
}

func TestRouteReflector(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root)
	nodes := mesh(t, 4)
	rr, clients := nodes[0], nodes[1:]
	rr.cfg = config(1)
	rr.cfg.Announce, rr.cfg.ClusterID = nil, netip.MustParseAddr("198.51.100.1")
	for i := range clients {
		p := peer(i+2, true)
		p.ReflectorClient = true
		rr.cfg.Peers = append(rr.cfg.Peers, p)
		clients[i].cfg = config(i + 2)
		clients[i].cfg.Peers = []datapath.Peer{peer(1, false)}
	}
	for _, n := range nodes {
		n.start()
	}
	rr.wait("all clients", synced(3, 3))
	for i, n := range clients {
		n.wait("reflected routes", synced(1, 2))
		// The next hop is the announcing node, not the reflector.
		want := slices.DeleteFunc(direct(i+2, 4), func(r string) bool { return strings.HasPrefix(r, block(1).String()) })
		if diff := cmp.Diff(want, n.routes()); diff != "" {
			t.Errorf("client %d's routes (-want +got):\n%s", i+2, diff)
		}
	}
}
