package e2e

import (
	"strings"
	"testing"

	"slipway/topology"
)

// udpSpec is a small cluster of flannel-udp.
func udpSpec(implementation topology.UDPImplementation, third bool) string {
	s := networkSpec(topology.FlannelUDP, "udp: {implementation: "+string(implementation)+"}") +
		"  nodes:\n    - {name: node01, roles: [control-plane, etcd, worker]}\n    - {name: node02, roles: [worker]}\n"
	if third {
		s += "    - {name: node03, roles: [worker]}\n"
	}
	return s
}

// TestUDPByPrograms goes through the life of a lab whose UDP tunnels are eBPF
// programs: what is broken is seen and mended, new nodes get leases everywhere,
// and other implementations and modes find nothing of it.
func TestUDPByPrograms(t *testing.T) {
	objects := func(last string) string {
		return podYAML("client", "node01", nil) + podYAML("web", last, []string{"app: web"}, "80/TCP") +
			serviceYAML("web", "selector: {app: web}, ports: [{port: 80}]")
	}
	l := up(t, "udpbpf", udpSpec(topology.UDPeBPF, false), objects("node02"))
	works := func(t *testing.T) {
		t.Helper()
		wantHealthy(t, l)
		pings(t, l.pods(), l.pods())
		answered(t, l.at("client"), "service web", l.clusterIP("web"), []*place{l.at("web")})
	}
	works(t)
	for _, s := range []sabotage{
		{name: "programs on eth0 removed", says: "eBPF UDP", do: func(t *testing.T, l *testLab) {
			within(t, l.at("node01"), "tc", "qdisc", "del", "dev", "eth0", "clsact")
		}},
		{name: "programs on flannel0 removed", says: "eBPF UDP", do: func(t *testing.T, l *testLab) {
			within(t, l.at("node02"), "tc", "qdisc", "del", "dev", "flannel0", "clsact")
		}},
		{name: "flannel0 deleted", says: "flannel0", do: func(t *testing.T, l *testLab) {
			ip(t, l.at("node02"), "link", "del", "flannel0")
		}},
	} {
		t.Run(s.name, func(t *testing.T) { repair(t, l, s) })
	}
	t.Run("a node joins", func(t *testing.T) {
		defer l.in(t)()
		l.again(udpSpec(topology.UDPeBPF, true), objects("node03"))
		works(t)
		if res := l.again(udpSpec(topology.UDPeBPF, true), objects("node03")); len(res.Changes) > 0 {
			t.Errorf("up of the same file changed %+v, want nothing", res.Changes)
		}
	})
	t.Run("no node is known", func(t *testing.T) {
		defer l.in(t)()
		out := within(t, l.at("client"), "sh", "-c", "ping -n -c 1 -W 1 10.244.99.1; true")
		if !strings.Contains(out, "100% packet loss") { // nobody is told about ICMP
			t.Errorf("ping of a subnet that no node has: %s", out)
		}
	})
	for _, impl := range []topology.UDPImplementation{topology.UDPBatched, topology.UDPeBPF, topology.UDPSimple} {
		t.Run("as "+string(impl), func(t *testing.T) {
			defer l.in(t)()
			l.again(udpSpec(impl, true), objects("node03"))
			works(t)
			for _, n := range l.nodes() {
				filters := within(t, n, "tc", "filter", "show", "dev", "eth0", "ingress")
				if got := strings.Contains(filters, "slipway-udp"); got != (impl == topology.UDPeBPF) {
					t.Errorf("%s: programs on eth0: %v\n%s", n.name, got, filters)
				}
			}
		})
	}
	t.Run("another mode", func(t *testing.T) {
		defer l.in(t)()
		l.again(udpSpec(topology.UDPeBPF, true), objects("node03"))
		l.slipway("mode", string(topology.FlannelVXLAN))
		l.read()
		works(t)
		for _, n := range l.nodes() {
			checkTraces(t, l, n, topology.FlannelVXLAN)
		}
		l.slipway("mode", string(topology.FlannelUDP))
		l.read()
		works(t)
	})
}
