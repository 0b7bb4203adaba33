package linux_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/plantest"
	"slipway/internal/testnet"
	"slipway/topology"
)

func TestPodPortsAreReportedNotTouched(t *testing.T) {
	ns, h := machine(t)
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	cfg, err := flannel.Modes()[1].Plan(s, "node01")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, cfg)
	port := cfg.PodPorts[0]
	d := commands(linux.Compare(cfg, read(t, h)))
	if !strings.HasPrefix(d, "add pod: ip link add "+port.HostIf) || strings.Count(d, "\n") != 1 {
		t.Errorf("missing port reported as:\n%s", d)
	}
	sh(t, ns, "ip link add "+port.HostIf+" mtu 1450 type veth peer name peer0")
	sh(t, ns, "ip link add veth00c0ffee type veth peer name peer1")
	want := "update pod: ip link set HOST master cni0 (was master )\n" +
		"update pod: ip link set HOST up (was down)\n" +
		"remove pod: ip link delete veth00c0ffee (was veth00c0ffee)\n"
	if diff := cmp.Diff(strings.ReplaceAll(want, "HOST", port.HostIf), commands(linux.Compare(cfg, read(t, h)))); diff != "" {
		t.Errorf("wrong ports (-want +got):\n%s", diff)
	}
	sh(t, ns, "ip link set "+port.HostIf+" master cni0 up")
	sh(t, ns, "ip link delete veth00c0ffee")
	if got, want := commands(linux.Compare(cfg, read(t, h))), "update pod: bridge link set dev "+port.HostIf+" hairpin on (was hairpin off)\n"; got != want {
		t.Errorf("hairpin: got %swant %s", got, want)
	}
	sh(t, ns, "bridge link set dev "+port.HostIf+" hairpin on")
	if d := linux.Compare(cfg, read(t, h)); len(d) != 0 {
		t.Errorf("a right port is reported:\n%s", commands(d))
	}
}

func TestRoutedPodPort(t *testing.T) {
	ns, h := machine(t)
	cfg, err := calico.Modes()[0].Plan(plantest.ThreeNodes(topology.CalicoBGP), "node01")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, h, cfg)
	dev := cfg.PodPorts[0].HostIf
	sh(t, ns, "ip link add "+dev+" address ee:ee:ee:ee:ee:ee mtu 1500 type veth peer name peer0")
	sh(t, ns, "ip link set "+dev+" up")
	sh(t, ns, "ip route add 10.244.101.9 dev "+dev+" scope link")
	want := "remove pod: ip route delete 10.244.101.9 dev DEV scope link (was 10.244.101.9 dev DEV scope link)\n" +
		"add pod: ip route replace 10.244.101.2 dev DEV scope link (was )\n"
	if diff := cmp.Diff(strings.ReplaceAll(want, "DEV", dev), commands(linux.Compare(cfg, read(t, h)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if d := apply(t, h, cfg); len(d) != 0 {
		t.Errorf("apply touched a pod's route:\n%s", commands(d))
	}
}

// A calico pod's gateway answers though no machine has the address and the
// node has no default route; the node and a learnt block are reached through it.
func TestRoutedPodsReachEachOther(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "192.168.233.30/24", b, "eth0", "192.168.233.40/24")
	s := plantest.ThreeNodes(topology.CalicoBGP)
	pods := map[string]*netns.NS{}
	for node, ns := range map[string]*netns.NS{"node01": a, "node02": b} {
		cfg, err := calico.Modes()[0].Plan(s, node)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, open(t, ns), podless(cfg))
		pod := testnet.NewNS(t)
		pods[node] = pod
		p := cfg.PodPorts[0]
		testnet.Wire(t, ns, p.HostIf, "", pod, "eth0", p.Address.String())
		sh(t, ns, "sysctl -qw net.ipv4.conf."+p.HostIf+".proxy_arp=1 net.ipv4.neigh."+p.HostIf+".proxy_delay=0")
		sh(t, ns, "ip link set "+p.HostIf+" address ee:ee:ee:ee:ee:ee")
		sh(t, ns, "ip route add "+p.Address.Addr().String()+" dev "+p.HostIf+" scope link")
		sh(t, pod, "ip route add 169.254.1.1 dev eth0 scope link")
		sh(t, pod, "ip route add default via 169.254.1.1")
	}
	sh(t, a, "ip route add 10.244.102.0/26 via 192.168.233.40 proto bird") // as a speaker would
	sh(t, b, "ip route add 10.244.101.0/26 via 192.168.233.30 proto bird")
	sh(t, pods["node01"], "ping -c1 -W2 192.168.233.30")
	sh(t, pods["node01"], "ping -c1 -W2 10.244.102.2")
	sh(t, pods["node01"], "ping -c1 -W2 192.168.233.40")
	sh(t, b, "ping -c1 -W2 10.244.101.2")
}

// Two nodes whose only knowledge of each other is their applied plans.
func TestNodesReachEachOther(t *testing.T) {
	testnet.Need(t, testnet.Ping)
	for _, mode := range []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW} {
		t.Run(string(mode), func(t *testing.T) {
			a, b := testnet.NewNS(t), testnet.NewNS(t)
			testnet.Wire(t, a, "eth0", "192.168.233.30/24", b, "eth0", "192.168.233.40/24")
			s := plantest.ThreeNodes(mode)
			for node, ns := range map[string]*netns.NS{"node01": a, "node02": b} {
				for _, m := range flannel.Modes() {
					if m.Name() != mode {
						continue
					}
					cfg, err := m.Plan(s, node)
					if err != nil {
						t.Fatal(err)
					}
					apply(t, open(t, ns), podless(cfg))
				}
			}
			pa, pb := testnet.NewNS(t), testnet.NewNS(t)
			plug(t, a, pa, "10.244.1.2/24", "10.244.1.1", s.Network.MTU)
			plug(t, b, pb, "10.244.2.2/24", "10.244.2.1", s.Network.MTU)
			size := int(s.Network.MTU) - 28 // IPv4 20, ICMP 8
			sh(t, pa, "ping -c1 -W2 10.244.2.2")
			sh(t, pa, "ping -c1 -W2 -Mdo -s"+itoa(size)+" 10.244.2.2")
			if out, err := shOut(pa, "ping -c1 -W1 -Mdo -s"+itoa(size+1)+" 10.244.2.2"); err == nil {
				t.Errorf("a packet above the MTU passed: %s", out)
			}
			sh(t, a, "ping -c1 -W2 10.244.2.2")
			sh(t, pa, "ping -c1 -W2 192.168.233.40")
		})
	}
}
