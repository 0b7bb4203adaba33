package linux_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/plantest"
	"slipway/topology"
)

// Remembered rules must save the reading, and never hide a difference: not a
// rule that went, one that came, or one that was replaced by another of the
// same length. That packets are counted is no difference.
func TestRememberedRules(t *testing.T) {
	ns, _ := machine(t)
	memo := filepath.Join(t.TempDir(), "rules")
	h, err := linux.Open(ns, linux.Options{LockFile: lockFile, MemoFile: memo})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Services = services()
	proxy, err := kubeproxy.Plan(s, "node01", kubeproxy.DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	cfg := variants(t)["flannel-vxlan"]
	cfg.RuleSets = append(slices.Clone(cfg.RuleSets), proxy)
	apply(t, h, cfg)
	first, err := os.ReadFile(memo)
	if err != nil {
		t.Fatalf("nothing was remembered: %v", err)
	}
	sh(t, ns, "ping -c 1 -W 1 192.168.233.30") // passes OUTPUT and is counted there
	if d := apply(t, h, cfg); len(d) != 0 {
		t.Errorf("equal rules were changed:\n%s", commands(d))
	}
	if again, err := os.ReadFile(memo); err != nil || string(again) != string(first) {
		t.Errorf("counters made the memo differ: %v", err)
	}
	for name, line := range map[string]string{
		"rule gone":     "iptables-legacy -t nat -F FLANNEL-POSTRTG",
		"rule come":     "iptables-legacy -t nat -A KUBE-SERVICES -d 10.96.0.99/32 -j RETURN",
		"rule replaced": "iptables-legacy -R KUBE-FORWARD 1 -m conntrack --ctstate NEW -j DROP",
		"jump gone":     "iptables-legacy -D FORWARD 1",
	} {
		sh(t, ns, line)
		if d := apply(t, h, cfg); len(d) == 0 {
			t.Errorf("%s: was not seen", name)
		}
		if d, err := h.Diff(t.Context(), cfg); err != nil || len(d) != 0 {
			t.Errorf("%s: not repaired: %v\n%s", name, err, commands(d))
		}
	}
	s.Services = s.Services[:1]
	if proxy, err = kubeproxy.Plan(s, "node01", kubeproxy.DefaultOptions(s)); err != nil {
		t.Fatal(err)
	}
	cfg.RuleSets[len(cfg.RuleSets)-1] = proxy
	if d := apply(t, h, cfg); len(d) == 0 {
		t.Error("other rules were wanted, and the memo hid it")
	}
}
