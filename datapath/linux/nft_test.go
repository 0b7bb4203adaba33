package linux_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/plantest"
	"slipway/internal/testnet"
	"slipway/topology"
)

// nftPlan is the services' table on node01.
func nftPlan(t testing.TB, s topology.Snapshot) datapath.RuleSet {
	t.Helper()
	s.Proxy.Mode = topology.ProxyNFTables
	set, err := kubeproxy.Plan(s, "node01", kubeproxy.DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	if set.NFT == nil || len(set.Tables) != 0 {
		t.Fatalf("not nftables' rules: %+v", set)
	}
	return set
}

// kinds are services that use every kind of rule and set.
func kinds() []topology.Service {
	out := services()
	lb := out[0]
	lb.Name, lb.Type, lb.ClusterIP, lb.AffinityClientIP = "balanced", topology.LoadBalanced, netip.MustParseAddr("10.96.0.22"), false
	lb.ExternalPolicyLocal = true
	lb.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.168.233.200")}
	lb.ExternalIPs = []netip.Addr{netip.MustParseAddr("192.168.233.201")}
	lb.SourceRanges = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/25"), netip.MustParsePrefix("192.168.232.0/24"), netip.MustParsePrefix("192.168.233.0/24")}
	lb.Ports = slices.Clone(lb.Ports)
	lb.Ports[0].NodePort = 30001
	return append(out, lb)
}

// The table is loaded as planned, found equal by another look, follows changes
// of services, is repaired, and leaves nothing when the mode changes.
func TestNFTables(t *testing.T) {
	testnet.Need(t, testnet.NFT)
	ns, h := machine(t)
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Services = kinds()
	base := variants(t)["flannel-vxlan"]
	with := func(set datapath.RuleSet) datapath.NodeConfig {
		cfg := base
		cfg.RuleSets = append(slices.Clone(cfg.RuleSets), set)
		return cfg
	}
	settled := func(what string, cfg datapath.NodeConfig) {
		t.Helper()
		if d := apply(t, h, cfg); len(d) != 0 {
			t.Errorf("%s, second apply:\n%s", what, commands(d))
		}
		if d, err := h.Diff(t.Context(), cfg); err != nil || len(d) != 0 {
			t.Errorf("%s, read again: %v\n%s", what, err, commands(d))
		}
	}
	full := with(nftPlan(t, s))
	apply(t, h, full)
	settled("all services", full)

	s.Services = s.Services[:1]
	s.Services[0].Ports[0].Endpoints = s.Services[0].Ports[0].Endpoints[:2]
	few := with(nftPlan(t, s))
	if d := commands(apply(t, h, few)); !strings.Contains(d, "nft delete chain ip kube-proxy external-") || strings.Contains(d, "nft add table") {
		t.Errorf("fewer services:\n%s", d)
	}
	settled("fewer services", few)

	for name, line := range map[string]string{
		"element gone":    "nft delete element ip kube-proxy cluster-ips { 10.96.0.20 }",
		"element come":    "nft add element ip kube-proxy service-ips { 10.96.0.99 . tcp . 80 : drop }",
		"element changed": "nft delete element ip kube-proxy service-nodeports { tcp . 30000 } ; add element ip kube-proxy service-nodeports { tcp . 30000 : drop }",
		"rule gone":       "nft flush chain ip kube-proxy services",
		"rule come":       "nft insert rule ip kube-proxy services accept",
		"chain come":      "nft add chain ip kube-proxy mine",
		"policy":          "nft add chain ip kube-proxy filter-forward { policy drop ; }",
		"table gone":      "nft delete table ip kube-proxy",
	} {
		sh(t, ns, line)
		if d := apply(t, h, few); len(d) == 0 {
			t.Errorf("%s: was not seen", name)
		}
		settled(name, few)
	}

	proxy, err := kubeproxy.Plan(s, "node01", kubeproxy.DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	legacy := with(proxy)
	apply(t, h, legacy)
	settled("iptables", legacy)
	if out, err := shOut(ns, "nft list tables"); err != nil || strings.Contains(out, "kube-proxy") {
		t.Errorf("the table outlived the mode: %v\n%s", err, out)
	}
	apply(t, h, few)
	for table, text := range read(t, h).RuleSave {
		if strings.Contains(text, "KUBE-") {
			t.Errorf("iptables rules outlived the mode in table %s:\n%s", table, text)
		}
	}
}

// A memo saves the reading of nftables too, and hides no difference.
func TestRememberedNFTables(t *testing.T) {
	testnet.Need(t, testnet.NFT)
	ns, _ := machine(t)
	memo := filepath.Join(t.TempDir(), "rules")
	h, err := linux.Open(ns, linux.Options{LockFile: lockFile, MemoFile: memo})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Services = services()
	cfg := variants(t)["flannel-vxlan"]
	cfg.RuleSets = append(slices.Clone(cfg.RuleSets), nftPlan(t, s))
	apply(t, h, cfg)
	first, err := os.ReadFile(memo)
	if err != nil {
		t.Fatalf("nothing was remembered: %v", err)
	}
	if d := apply(t, h, cfg); len(d) != 0 {
		t.Errorf("equal rules were changed:\n%s", commands(d))
	}
	if again, err := os.ReadFile(memo); err != nil || string(again) != string(first) {
		t.Errorf("the memo changed without a reason: %v", err)
	}
	for name, line := range map[string]string{
		"rule gone":  "nft flush chain ip kube-proxy services",
		"table gone": "nft delete table ip kube-proxy",
	} {
		sh(t, ns, line)
		if d := apply(t, h, cfg); len(d) == 0 {
			t.Errorf("%s: was not seen", name)
		}
	}
	s.Services = s.Services[:1]
	cfg.RuleSets[len(cfg.RuleSets)-1] = nftPlan(t, s)
	if d := apply(t, h, cfg); len(d) == 0 {
		t.Error("other rules were wanted, and the memo hid it")
	}
}

func BenchmarkNFTables(b *testing.B) {
	testnet.Need(b, testnet.Root, testnet.NFT)
	for _, n := range []int{1000, 10000} {
		s := plantest.ThreeNodes(topology.FlannelVXLAN)
		s.Services = manyNodePorts(n)
		cfg := datapath.NodeConfig{Node: "node01", RuleSets: []datapath.RuleSet{nftPlan(b, s)}}
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			for b.Loop() {
				ns := testnet.NewNS(b)
				h, err := linux.Open(ns, linux.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := h.Apply(b.Context(), cfg); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				began := time.Now()
				if d, err := h.Diff(b.Context(), cfg); err != nil || len(d) > 0 {
					b.Fatal(err, len(d))
				}
				b.ReportMetric(time.Since(began).Seconds(), "s/read")
				h.Close()
				b.StartTimer()
			}
		})
	}
}

func manyNodePorts(n int) []topology.Service {
	var out []topology.Service
	for i := range n {
		svc := services()[0]
		svc.Name, svc.AffinityClientIP = fmt.Sprintf("svc-%05d", i), false
		svc.ClusterIP = netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		svc.Ports = slices.Clone(svc.Ports)
		svc.Ports[0].NodePort = 1024 + i
		out = append(out, svc)
	}
	return out
}
