package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// output is what a program shows of the machine, or does to it.
func (m *machine) output(argv ...string) string {
	m.bed.t.Helper()
	out, err := run.Cmd{NS: m.ns, Name: argv[0], Args: argv[1:], Env: append(os.Environ(), "XTABLES_LOCKFILE="+m.path("xtables.lock"))}.Output(m.bed.t.Context())
	if err != nil {
		m.bed.t.Fatal(err)
	}
	return string(out)
}

// restart starts an agent that has run before, and waits until it is in its
// network again.
func (m *machine) restart() {
	t := m.bed.t
	t.Helper()
	before := m.entered()
	m.agent = m.start("agent", nil, binary, "agent", "--config", m.path("agent.yaml"))
	testnet.Eventually(t, patience, "the agent of "+m.name+" again", func() (bool, string) {
		if m.agent.ended() {
			t.Fatalf("the agent of %s ended", m.name)
		}
		return m.entered() > before, ""
	})
}

// entered is how often agents of the machine have said that it is in its network.
func (m *machine) entered() int {
	m.bed.t.Helper()
	raw, err := os.ReadFile(m.path("agent.log"))
	if err != nil {
		m.bed.t.Fatal(err)
	}
	return strings.Count(string(raw), "the node is in its network")
}

// two is a bed of two nodes of ours with a pod on each.
func two(t *testing.T, mode topology.ModeName) (*etcdBed, *machine, *machine) {
	t.Helper()
	b := newEtcdBed(t, mode)
	x, y := b.node("x", 11, ""), b.node("y", 12, "")
	for i, m := range []*machine{x, y} {
		m.startAgent(b.registry())
		m.run(fmt.Sprintf("c%d", i), "pod")
	}
	b.talk("x", "y")
	return b, x, y
}

// TestDriftIsRepaired: what somebody takes away comes back without being asked for.
func TestDriftIsRepaired(t *testing.T) {
	testnet.Need(t, testnet.VXLAN)
	b, x, y := two(t, topology.FlannelVXLAN)
	remote, _, vtep := b.lease(y)
	for _, c := range []struct{ take, want string }{
		{"ip link delete flannel.1", "ip -o link show type vxlan"},
		{"ip route delete " + remote.String(), "ip route show " + remote.String()},
		{"ip link set flannel.1 down", "ip route show " + remote.String()},
		{"ip neighbor delete " + remote.Addr().String() + " dev flannel.1", "ip neighbor show " + remote.Addr().String()},
		{"bridge fdb delete " + vtep + " dev flannel.1 dst " + y.addr.String() + " self", "bridge fdb show dev flannel.1"},
	} {
		x.output(strings.Fields(c.take)...)
		testnet.Eventually(t, patience, c.take+": to be repaired", func() (bool, string) {
			out := strings.TrimSpace(x.output(strings.Fields(c.want)...))
			return out != "", "nothing of " + c.want
		})
		b.talk("x", "y")
	}
	// Somebody takes the lease away.
	key := "/coreos.com/network/subnets/" + strings.Replace(x.subnetOf(b).String(), "/", "-", 1)
	if _, err := b.client.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, patience, "the lease to be claimed again", func() (bool, string) {
		_, ok := b.keys()[strings.TrimPrefix(key, "/coreos.com/network/")]
		return ok, fmt.Sprint(b.keys())
	})
	b.talk("x", "y")
}

func (m *machine) subnetOf(b *etcdBed) netip.Prefix {
	p, _, _ := b.lease(m)
	return p
}

// TestLeaseChanges: another node's address and MAC are followed, and what cannot
// be followed does no harm.
func TestLeaseChanges(t *testing.T) {
	testnet.Need(t, testnet.VXLAN)
	b, x, y := two(t, topology.FlannelVXLAN)
	put := func(subnet, address, backend, mac string) {
		value := fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":null,"BackendType":%q,"BackendData":{"VNI":1,"VtepMAC":%q}}`, address, backend, mac)
		if _, err := b.client.Put(t.Context(), "/coreos.com/network/subnets/"+strings.Replace(subnet, "/", "-", 1), value); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(what string, want, not string, argv ...string) {
		t.Helper()
		testnet.Eventually(t, patience, what, func() (bool, string) {
			out := x.output(argv...)
			return strings.Contains(out, want) && (not == "" || !strings.Contains(out, not)), out
		})
	}
	const m1, m2 = "02:00:00:00:77:01", "02:00:00:00:77:02"
	put("10.244.77.0/24", "192.168.50.77", "vxlan", m1)
	shows("the new node", m1+" dst 192.168.50.77", "", "bridge", "fdb", "show", "dev", "flannel.1")
	put("10.244.77.0/24", "192.168.50.78", "vxlan", m1)
	shows("its other address", m1+" dst 192.168.50.78", "192.168.50.77", "bridge", "fdb", "show", "dev", "flannel.1")
	put("10.244.77.0/24", "192.168.50.78", "vxlan", m2)
	shows("its other MAC", m2+" dst 192.168.50.78", m1, "bridge", "fdb", "show", "dev", "flannel.1")
	shows("its neighbour", m2, m1, "ip", "neighbor", "show", "10.244.77.0")
	put("10.244.77.0/24", "192.168.50.78", "host-gw", m2)
	shows("that its backend is another", "", m2, "bridge", "fdb", "show", "dev", "flannel.1")
	put(b.keyless(y).String(), "192.168.50.79", "vxlan", m1) // what y has a part of
	put("10.9.0.0/24", "192.168.50.79", "vxlan", m1)         // not of this network
	put("10.244.78.0/24", "192.168.50.80", "vxlan", m2)
	shows("the one after those", m2+" dst 192.168.50.80", "192.168.50.79", "bridge", "fdb", "show", "dev", "flannel.1")
	b.talk("x", "y")
}

// keyless is half of a node's subnet, which nobody can have.
func (b *etcdBed) keyless(m *machine) netip.Prefix {
	p := m.subnetOf(b)
	return netip.PrefixFrom(p.Addr(), p.Bits()+1)
}

// TestAgentEnds: the kernel's state stays when the agent ends, by whatever, and
// when nobody can be asked; the next agent takes it over as it is.
func TestAgentEnds(t *testing.T) {
	testnet.Need(t, testnet.VXLAN)
	b, x, _ := two(t, topology.FlannelVXLAN)
	index := func() int {
		l, err := testnet.Handle(t, x.ns).LinkByName("flannel.1")
		if err != nil {
			t.Fatal(err)
		}
		return l.Attrs().Index
	}
	before, subnet := index(), x.subnetOf(b)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		x.agent.end(t, sig)
		b.talk("x", "y")
		x.restart()
		if index() != before || x.subnetOf(b) != subnet {
			t.Errorf("after %s: flannel.1 is %d, the subnet %s; before %d, %s", sig, index(), x.subnetOf(b), before, subnet)
		}
	}
	second := exec.Command(binary, "agent", "--config", x.path("agent.yaml"))
	err := x.ns.Do(func() error { return second.Run() })
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("a second agent on the node: %v, want exit code 1", err)
	}

	b.etcd.end(t, syscall.SIGKILL)
	x.agent.end(t, syscall.SIGKILL)
	x.agent = x.start("agent", nil, binary, "agent", "--config", x.path("agent.yaml"))
	entered := x.entered()
	b.talk("x", "y")
	if x.agent.ended() || x.entered() != entered {
		t.Error("without etcd the agent must wait")
	}
	b.startEtcd()
	third := b.node("z", 13, "")
	third.startAgent(b.registry())
	third.run("c9", "pod")
	b.talk("x", "y", "z")
}

// TestCleanupRemovesEverything: nothing is left on a node of any mode that keeps
// its leases in etcd.
func TestCleanupRemovesEverything(t *testing.T) {
	for _, mode := range flannelModes {
		t.Run(string(mode), func(t *testing.T) {
			testnet.Need(t, testnet.VXLAN, testnet.TUN)
			b := newEtcdBed(t, mode)
			x := b.node("x", 11, "")
			state := func() string {
				return x.output("ip", "-o", "-br", "link") + x.output("ip", "route", "show", "table", "all", "type", "unicast") +
					x.output("ip", "neighbor", "show", "nud", "permanent")
			}
			before := state()
			x.startAgent(b.registry())
			x.agent.end(t, syscall.SIGTERM)
			x.cleanup()
			if after := state(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if rules := x.output("iptables-legacy-save") + x.output("iptables-save"); strings.Contains(rules, "FLANNEL") {
				t.Errorf("rules left:\n%s", rules)
			}
			if keys := b.keys(); len(keys) != 1 {
				t.Errorf("etcd holds %v, want the network's configuration alone", keys)
			}
			for _, f := range []string{"net.d/10-slipway.conflist", "subnet.env", "state/ready"} {
				if _, err := os.Stat(x.path(f)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %v", f, err)
				}
			}
		})
	}
}

// TestRuntime goes through CNI as container runtimes do it, with what the agent wrote.
func TestRuntime(t *testing.T) {
	b := newEtcdBed(t, topology.FlannelHostGW)
	x := b.node("x", 11, "")
	x.startAgent(b.registry())
	p := x.run("old", "web")
	c, list := x.runtime()
	ctx := t.Context()
	if err := c.GetStatusNetworkList(ctx, list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	if err := c.CheckNetworkList(ctx, list, sandbox("old", "web", p.ns)); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	// The pod's next container; then the runtime deletes the former one once more.
	for range 2 {
		if err := c.DelNetworkList(ctx, list, sandbox("old", "web", nil)); err != nil {
			t.Errorf("DEL without a namespace: %v", err)
		}
	}
	q := x.run("new", "web")
	if err := c.DelNetworkList(ctx, list, sandbox("old", "web", nil)); err != nil {
		t.Errorf("DEL of the former: %v", err)
	}
	b.reaches(q.ns, x.subnetOf(b).Addr().Next(), "the pod after its former container was deleted")
	x.agent.end(t, syscall.SIGTERM)
	if err := os.Remove(x.path("state/ready")); err != nil { // as a reboot does
		t.Fatal(err)
	}
	if err := c.GetStatusNetworkList(ctx, list); err == nil {
		t.Error("STATUS says that a node is well that was not programmed")
	}
	if _, err := c.AddNetworkList(ctx, list, sandbox("early", "early", testnet.NewNS(t))); err == nil || !strings.Contains(err.Error(), "not programmed") {
		t.Errorf("ADD on a node that was not programmed: %v", err)
	}
}

// TestCalico: three nodes of ours with blocks, by the real API.
func TestCalico(t *testing.T) {
	for _, mode := range []topology.ModeName{topology.CalicoBGP, topology.CalicoIPIP} {
		t.Run(string(mode), func(t *testing.T) {
			testnet.Need(t, testnet.BPF, testnet.TUN)
			if mode == topology.CalicoBGP {
				testnet.Need(t, testnet.Bird)
			}
			b := newKubeBed(t, mode)
			if mode == topology.CalicoBGP {
				b.extra = ", bgp: {peers: [{address: 192.168.50.250}]}"
			}
			var names []string
			for i, name := range []string{"x", "y", "z"} {
				m := b.node(name, byte(11+i), "")
				names = append(names, name)
				b.register(m, fmt.Sprintf("10.244.0.%d/26", i*64))
				m.startAgent(b.registry())
				p := m.run("c-"+name, "pod")
				if last := p.addr.As4()[3]; last%64 == 0 {
					t.Errorf("the pod of %s has its block's first address, %s", name, p.addr)
				}
			}
			b.talk(names...)
			x := b.nodes["x"]
			x.agent.end(t, syscall.SIGKILL) // routes stay, and sessions come back
			b.talk(names...)
			x.restart()
			b.talk(names...)
			if mode == topology.CalicoBGP {
				b.bird()
				b.talk(names...)
			}
			x.agent.end(t, syscall.SIGTERM)
			c, list := x.runtime()
			if err := c.DelNetworkList(t.Context(), list, sandbox("c-x", "pod", nil)); err != nil {
				t.Error(err)
			}
			x.cleanup()
			if routes := x.output("ip", "route"); strings.Contains(routes, "10.244.") || strings.Contains(routes, "169.254.") {
				t.Errorf("routes left:\n%s", routes)
			}
			if links := x.output("ip", "-br", "link"); strings.Contains(links, "tunl0") && !strings.Contains(links, "tunl0@NONE") {
				t.Errorf("links left:\n%s", links)
			}
		})
	}
}

// bird puts a real bird on the wire as every speaker's peer, with a block of its own.
func (b *bed) bird() {
	t := b.t
	t.Helper()
	m := b.machine("bird", 250)
	block := netip.MustParsePrefix("10.244.200.0/26")
	host := block.Addr().Next()
	h := testnet.Handle(t, m.ns)
	lo, err := h.LinkByName("lo")
	if err == nil {
		addr, _ := netlink.ParseAddr(host.String() + "/32")
		addr.Scope = unix.RT_SCOPE_UNIVERSE
		err = h.AddrAdd(lo, addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("router id %s;\nprotocol device {}\nprotocol direct { ipv4; }\nprotocol kernel { ipv4 { export where source = RTS_BGP; }; }\nprotocol static { ipv4; route %s blackhole; }\n", m.addr, block)
	for name, n := range b.nodes {
		conf += fmt.Sprintf("protocol bgp %s { local %s as 64512; neighbor %s as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2; ipv4 { import all; export where source = RTS_STATIC; next hop self; }; }\n", name, m.addr, n.addr)
	}
	if err := os.WriteFile(m.path("bird.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start("bird", nil, "bird", "-f", "-c", m.path("bird.conf"), "-s", m.path("ctl"), "-P", m.path("pid"))
	for name, n := range b.nodes {
		b.reaches(n.pods[0].ns, host, "pod of "+name+" → an address in bird's block")
		b.reaches(m.ns, n.pods[0].addr, "bird → pod of "+name)
	}
}
