package linux

import (
	"slices"
	"testing"

	"slipway/datapath"
)

// Pairs of a rule as programs write it and as iptables-legacy-save prints it.
// The right-hand sides were printed by iptables 1.8.
func TestCanonicalEqual(t *testing.T) {
	for _, c := range [][2]string{
		{`-A X -m comment --comment "a b" -m tcp -p tcp -d 10.96.0.10/32 --dport 80 -j Y`, `-A X -d 10.96.0.10/32 -p tcp -m comment --comment "a b" -m tcp --dport 80 -j Y`},
		{`-A X -d 10.96.0.10 -j Y`, `-A X -d 10.96.0.10/32 -j Y`},
		{`-A X -s 10.244.1.7/24 -j Y`, `-A X -s 10.244.1.0/24 -j Y`},
		{`-A X -j MARK --or-mark 0x4000`, `-A X -j MARK --set-xmark 0x4000/0x4000`},
		{`-A X -j MARK --xor-mark 0x4000`, `-A X -j MARK --set-xmark 0x4000/0x0`},
		{`-A X -j MARK --and-mark 0xffffbfff`, `-A X -j MARK --set-xmark 0x0/0x4000`},
		{`-A X -j MARK --set-mark 1`, `-A X -j MARK --set-xmark 0x1/0xffffffff`},
		{`-A X -m mark ! --mark 0x4000/0x4000 -j RETURN`, `-A X -m mark ! --mark 0x4000/0x4000 -j RETURN`},
		{`-A X -m statistic --mode random --probability 0.3333333333 -j Y`, `-A X -m statistic --mode random --probability 0.33333333349 -j Y`},
		{`-A X -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, `-A X -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT`},
		{`-A X -m recent --name S --rcheck --seconds 10800 --reap -j Y`, `-A X -m recent --rcheck --seconds 10800 --reap --name S --mask 255.255.255.255 --rsource -j Y`},
		{`-A X -j REJECT`, `-A X -j REJECT --reject-with icmp-port-unreachable`},
		{`-A X -m comment --comment one -j Y`, `-A X -m comment --comment "one" -j Y`},
		{`-A X -m comment --comment "-j Z ! \"q\"" -j Y`, `-A X -m comment --comment "-j Z ! \"q\"" -j Y`},
		{`-A X -p tcp --dport 80 -j Y`, `-A X -p tcp -m tcp --dport 80 -j Y`},
	} {
		if a, b := canonical(c[0]), canonical(c[1]); a != b {
			t.Errorf("differ:\n%s\n%s\n%s\n%s", c[0], c[1], a, b)
		}
	}
}

func TestCanonicalTellsApart(t *testing.T) {
	rules := []string{
		`-A X -s 10.0.0.0/8 -j Y`, `-A X ! -s 10.0.0.0/8 -j Y`, `-A X -d 10.0.0.0/8 -j Y`, `-A X -s 10.0.0.0/9 -j Y`, `-A X -s 10.0.0.0/8 -j Z`,
		`-A X -m mark --mark 0x4000/0x4000 -j Y`, `-A X -m mark ! --mark 0x4000/0x4000 -j Y`, `-A X -m mark --mark 0x4000 -j Y`,
		`-A X -j MASQUERADE`, `-A X -j MASQUERADE --random-fully`,
		`-A X -m statistic --mode random --probability 0.5 -j Y`, `-A X -m statistic --mode random --probability 0.25 -j Y`,
		`-A X -m comment --comment a -j Y`, `-A X -m comment --comment b -j Y`, `-A X -j Y`,
		`-A X -p tcp -m tcp --dport 80 -j Y`, `-A X -p tcp -m tcp --sport 80 -j Y`, `-A X -p udp -m udp --dport 80 -j Y`,
	}
	seen := map[string]string{}
	for _, r := range rules {
		if other, ok := seen[canonical(r)]; ok {
			t.Errorf("taken for equal:\n%s\n%s", r, other)
		}
		seen[canonical(r)] = r
	}
}

func TestSplitTables(t *testing.T) {
	got := splitTables("# by iptables-save\n*nat\n:POSTROUTING ACCEPT [3:180]\n:MINE - [0:0]\n-A MINE -m comment --comment \"x [y]\" -j RETURN\nCOMMIT\n# done\n*raw\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
	want := ":POSTROUTING ACCEPT\n:MINE -\n-A MINE -m comment --comment \"x [y]\" -j RETURN\n"
	if got["nat"] != want || got["raw"] != ":OUTPUT ACCEPT\n" || len(got) != 2 {
		t.Errorf("got %q", got)
	}
	parsed := parseTable(got["nat"])
	if !parsed.builtin["POSTROUTING"] || parsed.builtin["MINE"] || !slices.Equal(parsed.chains, []string{"POSTROUTING", "MINE"}) || len(parsed.rules["MINE"]) != 1 {
		t.Errorf("parsed %+v", parsed)
	}
}

func TestForeignChains(t *testing.T) {
	cfg := datapath.NodeConfig{ForeignChains: []string{"KUBE-"}}
	for chain, want := range map[string]bool{"KUBE-SERVICES": false, "FLANNEL-FWD": true, "cali-FORWARD": true, "DOCKER": false} {
		if got := ownsChain(cfg, chain); got != want {
			t.Errorf("%s is owned: %v", chain, got)
		}
	}
	if ownsChain(datapath.NodeConfig{}, "KUBE-KUBELET-CANARY") || !ownsChain(datapath.NodeConfig{}, "KUBE-SERVICES") {
		t.Error("the kubelet's chains are taken for kube-proxy's, or the other way round")
	}
}
