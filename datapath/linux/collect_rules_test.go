package linux_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// someRules use several tables and leave counters behind.
const someRules = `*nat
:PREROUTING ACCEPT [0:0]
:KUBE-TEST - [0:0]
-A PREROUTING -d 10.96.0.1/32 -p tcp -m comment --comment "a *star and COMMIT in it" -j KUBE-TEST
-A KUBE-TEST -p tcp -j DNAT --to-destination 10.244.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -s 10.244.0.0/16 -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
COMMIT
`

func load(t testing.TB, ns *netns.NS, program, rules string) {
	t.Helper()
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "xtables.lock"))
	_, err := run.Cmd{NS: ns, Name: program, Args: []string{"--noflush"}, Env: env, Stdin: strings.NewReader(rules)}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// uncommented drops the comments that iptables-save puts around tables.
func uncommented(save string) string {
	var b strings.Builder
	for line := range strings.Lines(save) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func joined(tables map[string]string, save string) string {
	var b strings.Builder
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "*") {
			b.WriteString(tables[strings.TrimSpace(line[1:])])
		}
	}
	return b.String()
}

func TestCollectRules(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	for _, backend := range []string{"legacy", "nft"} {
		t.Run(backend, func(t *testing.T) {
			ns := testnet.NewNS(t)
			if st := collected(t, ns, linux.CollectOptions{}); len(st.RuleSave) != 0 || st.RuleBackend != "" || st.Conntrack != nil {
				t.Errorf("a namespace without rules: backend %q, %d tables, conntrack %+v", st.RuleBackend, len(st.RuleSave), st.Conntrack)
			}
			load(t, ns, "iptables-"+backend+"-restore", someRules)
			in(t, ns, "ping", "-c1", "-W1", "127.0.0.1") // something to count
			st := collected(t, ns, linux.CollectOptions{Counters: true})
			save := uncommented(in(t, ns, "iptables-"+backend+"-save", "-c"))
			if st.RuleBackend != backend {
				t.Errorf("rules were made in %s, collected from %q", backend, st.RuleBackend)
			}
			if d := cmp.Diff(save, joined(st.RuleSave, save)); d != "" || len(st.RuleSave) != strings.Count(save, "\nCOMMIT") {
				t.Errorf("rules (-iptables-save -c +collected):\n%s", d)
			}
			if !strings.Contains(save, "[") || strings.Contains(save, "[0:0] -A OUTPUT -o lo") {
				t.Errorf("the ping was not counted:\n%s", save)
			}
			if st.NFTables != "" {
				t.Errorf("there are no tables of nftables' own: %s", st.NFTables)
			}
			if st.Conntrack == nil {
				t.Error("a rule that translates addresses makes the kernel track connections")
			}
			if _, err := kubeproxy.ParseSave(joined(st.RuleSave, save)); err != nil {
				t.Errorf("collected rules cannot be parsed: %v", err)
			}
		})
	}
}

// The copy serves while the kernel's rules are the same, and no longer.
func TestCollectRulesFromCache(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	ns := testnet.NewNS(t)
	load(t, ns, "iptables-legacy-restore", someRules)
	cache := filepath.Join(t.TempDir(), "saved")
	o := linux.CollectOptions{RuleCache: cache}
	first := collected(t, ns, o)
	kept, err := os.ReadFile(cache)
	if err != nil {
		t.Fatal(err)
	}
	// A mark in the copy shows who reads it.
	marked := strings.Replace(string(kept), ":KUBE-TEST", "# copy\n:KUBE-TEST", 1)
	if err := os.WriteFile(cache, []byte(marked), 0o600); err != nil {
		t.Fatal(err)
	}
	in(t, ns, "ping", "-c1", "-W1", "127.0.0.1") // counters are not rules
	if st := collected(t, ns, o); !strings.Contains(st.RuleSave["nat"], "# copy") {
		t.Error("nothing changed, but the copy was not used")
	}
	if st := collected(t, ns, linux.CollectOptions{RuleCache: cache, Counters: true}); strings.Contains(st.RuleSave["nat"], "# copy") {
		t.Error("counters were asked for, but the copy was used")
	}
	in(t, ns, "iptables-legacy", "-A", "FORWARD", "-j", "DROP")
	st := collected(t, ns, o)
	if strings.Contains(st.RuleSave["nat"], "# copy") || !strings.Contains(st.RuleSave["filter"], "-A FORWARD -j DROP\n") {
		t.Errorf("a rule was added, and collected was:\n%s", st.RuleSave["filter"])
	}
	in(t, ns, "iptables-legacy", "-D", "FORWARD", "-j", "DROP")
	if d := cmp.Diff(first.RuleSave, collected(t, ns, o).RuleSave); d != "" {
		t.Errorf("the rules are the first ones again (-then +now):\n%s", d)
	}
}

// Tables of nftables' own are told, those of iptables-nft and the observer's are not.
func TestCollectNFTables(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	ns := testnet.NewNS(t)
	load(t, ns, "iptables-nft-restore", someRules)
	in(t, ns, "nft", "add table ip "+linux.ObserverTable)
	in(t, ns, "nft", "add table ip6 other")
	if st := collected(t, ns, linux.CollectOptions{}); st.NFTables != "" {
		t.Errorf("no table of nftables' own that IPv4 meets: %s", st.NFTables)
	}
	in(t, ns, "nft", "add table inet mine; add chain inet mine f { type filter hook forward priority 0; }; add rule inet mine f ct state invalid drop")
	st := collected(t, ns, linux.CollectOptions{})
	var doc struct {
		Objects []map[string]struct{ Family, Table, Name string } `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(st.NFTables), &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range doc.Objects {
		for kind, x := range o {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", kind, x.Family, max(x.Table, x.Name))))
		}
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"chain inet mine", "metainfo", "rule inet mine", "table inet mine"}, got); d != "" {
		t.Errorf("nftables (-made +collected):\n%s", d)
	}
	if !strings.Contains(st.RuleSave["nat"], "KUBE-TEST") || st.RuleBackend != "nft" {
		t.Errorf("iptables-nft's rules beside it: %q %s", st.RuleBackend, st.RuleSave["nat"])
	}
}
