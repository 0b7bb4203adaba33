package linux_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/plantest"
	"slipway/internal/testnet"
	"slipway/topology"
)

// fullNode is a namespace with the devices and routes of a node with 100 pods.
func fullNode(b *testing.B) *netns.NS {
	ns, other := testnet.NewNS(b), testnet.NewNS(b)
	testnet.Wire(b, ns, "eth0", "192.0.2.10/24", other, "peer0", "192.0.2.20/24")
	var s strings.Builder
	for i := range 100 {
		fmt.Fprintf(&s, "link add cali%03d type veth peer name eth%03d netns %s\n", i, i, other.Name())
		fmt.Fprintf(&s, "link set cali%03d up\nroute add 10.244.0.%d/32 dev cali%03d\n", i, i+1, i)
		fmt.Fprintf(&s, "neigh add 10.244.0.%d lladdr 02:00:00:00:01:%02x dev cali%03d nud permanent\n", i+1, i, i)
	}
	for i := range 100 {
		fmt.Fprintf(&s, "route add 10.244.%d.0/26 via 192.0.2.20 proto bird\n", i+1)
	}
	batch(b, ns, s.String())
	return ns
}

// manyServices loads kube-proxy's rules for services of three endpoints each.
func manyServices(b *testing.B, ns *netns.NS, services int) {
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Services = nil
	for i := range services {
		svc := topology.Service{
			Namespace: "default", Name: fmt.Sprintf("svc-%d", i), Type: topology.ClusterIP,
			ClusterIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}),
			Ports:     []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: 80, TargetPort: "80"}},
		}
		for e := range 3 {
			svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, topology.Endpoint{
				Address: netip.AddrFrom4([4]byte{10, 244, byte(e + 1), byte(i%100 + 2)}), Port: 80, Node: "node01", Ready: true, Serving: true,
			})
		}
		s.Services = append(s.Services, svc)
	}
	rules, err := kubeproxy.Render(s, "node01", kubeproxy.DefaultOptions(s))
	if err != nil {
		b.Fatal(err)
	}
	load(b, ns, "iptables-legacy-restore", string(rules))
}

func BenchmarkCollect(b *testing.B) {
	testnet.Need(b, testnet.Root, testnet.IPTables)
	ns := fullNode(b)
	run := func(name string, o linux.CollectOptions) {
		b.Run(name, func(b *testing.B) {
			h, err := linux.Open(ns, linux.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer h.Close()
			for b.Loop() {
				if _, err := h.Collect(b.Context(), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("pods=100", linux.CollectOptions{})
	run("pods=100/skip", linux.CollectOptions{SkipSockets: true, SkipConntrack: true, SkipRules: true})
	manyServices(b, ns, 5000)
	run("pods=100,services=5000", linux.CollectOptions{})
	run("pods=100,services=5000/counters", linux.CollectOptions{Counters: true})
	run("pods=100,services=5000/cached", linux.CollectOptions{RuleCache: filepath.Join(b.TempDir(), "saved")})
}
