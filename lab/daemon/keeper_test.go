package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/nl"
	"slipway/internal/testnet"
)

// speakerArg makes the test binary a BGP speaker when it is run again.
const speakerArg = "bgp-speaker"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == speakerArg {
		if err := bgp.RunSpeaker(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const patience = 30 * time.Second

// pair is a daemon with two nodes that have a wire between them.
type pair struct {
	t      *testing.T
	s      *server
	d      Desired
	routes [2]*nl.Handle
}

func block(i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("10.65.%d.0/26", i)) }

func newPair(t *testing.T, speaker ...string) *pair {
	t.Helper()
	testnet.Need(t, testnet.Root)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	ctx, cancel := context.WithCancel(context.Background())
	p := &pair{t: t, routes: [2]*nl.Handle{testnet.Handle(t, a), testnet.Handle(t, b)}}
	p.s = newServer(ctx, cancel, Config{Lab: "test", Speaker: speaker, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		stop, done := context.WithTimeout(context.Background(), patience)
		defer done()
		if err := p.s.stopAll(stop); err != nil {
			t.Error(err)
		}
		cancel()
	})
	for i, ns := range []string{a.Name(), b.Name()} {
		own, other := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), netip.AddrFrom4([4]byte{192, 0, 2, byte(2 - i)})
		p.d.Nodes = append(p.d.Nodes, Node{Name: fmt.Sprintf("node%d", i+1), NetNS: ns, Speaker: &datapath.Speaker{
			ASN: 64512, RouterID: own, Listen: own, Announce: []netip.Prefix{block(i + 1)}, Accept: netip.MustParsePrefix("10.65.0.0/16"),
			Peers: []datapath.Peer{{Name: fmt.Sprintf("node%d", 2-i), Address: other, ASN: 64512, Passive: i == 1}},
		}})
	}
	return p
}

// set hands the daemon the wanted state and waits for BGP.
func (p *pair) set() {
	p.t.Helper()
	if _, err := p.s.set(p.t.Context(), p.d); err != nil {
		p.t.Fatal(err)
	}
	p.converged()
}

func (p *pair) converged() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := p.s.waitSpeakers(ctx); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) state(node string) SpeakerState { return p.s.status().Speakers[node] }

// awaitRoute waits until the first node's kernel has a route to a block, or has none.
func (p *pair) awaitRoute(to netip.Prefix, want bool) {
	p.t.Helper()
	testnet.Eventually(p.t, patience, "route to "+to.String(), func() (bool, string) {
		filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BIRD}
		list, err := nl.Dump(func() ([]netlink.Route, error) {
			return p.routes[0].RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return false, err.Error()
		}
		have := false
		for _, r := range list {
			have = have || r.Dst.String() == to.String()
		}
		return have == want, fmt.Sprint(list)
	})
}

// A speaker that is killed comes back by itself, with the state that is wanted
// by then; meanwhile the daemon says that it is not there.
func TestKilledSpeakerComesBack(t *testing.T) {
	p := newPair(t, "/proc/self/exe", speakerArg)
	p.set()
	p.awaitRoute(block(2), true)
	before := p.state("node1")
	if before.PID == 0 || before.Established != 1 || before.Restarts != 0 || len(before.Down) != 0 {
		t.Fatalf("before: %+v", before)
	}
	if err := unix.Kill(before.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, "a new speaker", func() (bool, string) {
		s := p.state("node1")
		if s.PID == before.PID {
			return false, fmt.Sprintf("%+v", s)
		}
		if s.PID == 0 && (s.Established != 0 || len(s.Down) != 1 || s.Synced) {
			t.Fatalf("without a process it is %+v", s)
		}
		return s.PID != 0, fmt.Sprintf("%+v", s)
	})
	p.converged()
	after := p.state("node1")
	if after.Restarts != 1 || !strings.Contains(after.LastEnd, "signal: killed") || after.Established != 1 {
		t.Errorf("after: %+v", after)
	}
	// It is a speaker that works: what changes from now on arrives.
	p.d.Nodes[1].Speaker.Announce = []netip.Prefix{block(22)}
	p.set()
	p.awaitRoute(block(22), true)
	p.awaitRoute(block(2), false)
}

// A change that comes while no speaker runs is what the next one gets.
func TestChangeWhileSpeakerIsDown(t *testing.T) {
	p := newPair(t, "/proc/self/exe", speakerArg)
	p.set()
	k := p.s.running.speakersNow()["node2"]
	if err := unix.Kill(p.state("node2").PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-k.Process().Done()
	changed := *p.d.Nodes[1].Speaker
	changed.Announce = []netip.Prefix{block(22)}
	p.d.Nodes[1].Speaker = &changed
	p.set()
	p.awaitRoute(block(22), true)
	p.awaitRoute(block(2), false)
}

// Another AS number wants other speakers, and gets them.
func TestChangeOfIdentityReplacesSpeakers(t *testing.T) {
	p := newPair(t, "/proc/self/exe", speakerArg)
	p.set()
	before := p.state("node1").PID
	for i := range p.d.Nodes {
		changed := *p.d.Nodes[i].Speaker
		changed.ASN = 64513
		changed.Peers = []datapath.Peer{changed.Peers[0]}
		changed.Peers[0].ASN = 64513
		p.d.Nodes[i].Speaker = &changed
	}
	p.set()
	if after := p.state("node1"); after.PID == before || after.Restarts != 0 {
		t.Errorf("it was process %d before, and now is %+v", before, after)
	}
	p.awaitRoute(block(2), true)
}

// A program that cannot serve is reported, with what it said.
func TestSpeakerThatDoesNotStart(t *testing.T) {
	p := newPair(t, "/proc/self/exe", "-no-such-flag")
	_, err := p.s.set(t.Context(), p.d)
	if err == nil || !strings.Contains(err.Error(), "bgp node1") || !strings.Contains(err.Error(), "bgp node2") {
		t.Errorf("two speakers that cannot start: %v", err)
	}
}
