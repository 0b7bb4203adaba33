package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// birdBlock is what bird announces, and birdHost an address in it.
var (
	birdBlock = netip.MustParsePrefix("10.244.200.0/26")
	birdHost  = netip.MustParseAddr("10.244.200.1")
)

const birdSpec = `    bgp: {peers: [{address: 192.168.1.50}]}
  underlay:
    segments: [{name: rack1, subnet: 192.168.1.0/24}]
  nodes:
    - {name: node01, roles: [control-plane, etcd, worker]}
    - {name: node02, roles: [worker]}
    - {name: switch, roles: [load-balancer], address: 192.168.1.50}
`

// TestBird puts a real bird in one of the lab's machines, which is no node of
// the datapath, as a peer of every node's speaker. Routes go both ways, and
// packets follow them.
func TestBird(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.Bird)
	objects := podYAML("a", "node01", nil, "80/TCP") + podYAML("b", "node02", nil, "80/TCP")
	l := up(t, "bird", networkSpec(topology.CalicoBGP, "")+birdSpec, objects)
	sw := l.at("switch")
	addHost(t, sw, birdHost)
	startBird(t, l, sw)

	for _, n := range l.st.Snapshot.Nodes {
		if !n.InDatapath() {
			continue
		}
		for _, block := range n.Blocks {
			want := fmt.Sprintf("%s via %s dev eth0 proto bird", block, n.Address)
			eventually(t, "bird's kernel to have the block of "+n.Name+" by "+n.Name, func() (bool, string) {
				routes := ip(t, sw, "route", "show", block.String())
				return strings.HasPrefix(routes, want), "want " + want + "…, have " + routes
			})
		}
		want := fmt.Sprintf("%s via %s dev eth0 proto bird", birdBlock, sw.addr)
		eventually(t, "bird's block on "+n.Name, func() (bool, string) {
			routes := ip(t, l.at(n.Name), "route", "show", birdBlock.String())
			return strings.HasPrefix(routes, want), "want " + want + "…, have " + routes
		})
	}
	for _, pod := range l.pods() {
		if out, err := pod.ping(birdHost); err != nil {
			t.Errorf("ping %s (%s) → an address in bird's block: %v\n%s", pod.name, pod.node, err, out)
		}
		if out, err := sw.ping(pod.addr); err != nil {
			t.Errorf("ping bird's machine → %s (%s): %v\n%s", pod.name, pod.node, err, out)
		}
	}
	if s := slipway(t, "status", "-L", l.name); s.Code != 0 {
		t.Errorf("%s with bird as a peer: exit code %d, want 0\n%s%s", s.Argv, s.Code, s.Out, s.Err)
	}
}

// startBird runs bird in a machine until the test ends, with a session to
// every node's speaker and one block of its own.
func startBird(t *testing.T, l *testLab, p *place) {
	t.Helper()
	conf := fmt.Sprintf(`router id %s;
protocol device {}
protocol direct { ipv4; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; }
protocol static { ipv4; route %s blackhole; }
`, p.addr, birdBlock)
	for _, n := range l.nodes() {
		conf += fmt.Sprintf(`protocol bgp %s {
	local %s as 64512;
	neighbor %s as 64512;
	connect delay time 1;
	connect retry time 1;
	error wait time 1, 2;
	ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
`, n.name, p.addr, n.addr)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "bird.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bird", "-f", "-c", file, "-s", filepath.Join(dir, "ctl"), "-P", filepath.Join(dir, "pid"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := p.ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("bird: %s", &said)
		}
	})
}

// addHost gives a machine a further address, on its loopback.
func addHost(t *testing.T, p *place, a netip.Addr) {
	t.Helper()
	h := handle(t, p)
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}, Scope: unix.RT_SCOPE_UNIVERSE}
	if err := h.AddrAdd(link(t, p, "lo"), addr); err != nil {
		t.Fatal(err)
	}
}

// ip runs iproute2 in a place.
func ip(t testing.TB, p *place, args ...string) string {
	t.Helper()
	out, err := run.Cmd{NS: p.ns, Name: "ip", Args: args}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// eventualPatience is how long a condition may take that has to come true.
const eventualPatience = 30 * time.Second

// eventually waits for a condition, and fails with what it last said.
func eventually(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(eventualPatience); ; <-time.After(20 * time.Millisecond) {
		done, said := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %s", what, eventualPatience, said)
		}
	}
}
