package services

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath/kubeproxy"
	"slipway/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ruleset reads a case of datapath/kubeproxy/testdata: a snapshot, and what a
// kernel printed of kube-proxy's own rules for it.
func ruleset(t *testing.T, name string) (*topology.Snapshot, *Loaded) {
	t.Helper()
	dir := "../../datapath/kubeproxy/testdata/"
	var c struct {
		Node     string
		Snapshot topology.Snapshot
	}
	data, err := os.ReadFile(dir + name + ".json")
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + name + ".save.golden")
	if err != nil {
		t.Fatal(err)
	}
	l := &Loaded{Node: c.Node, Program: "iptables-legacy-save"}
	if l.Rules, err = kubeproxy.ParseSave(string(text)); err != nil {
		t.Fatal(err)
	}
	return &c.Snapshot, l
}

func look(t *testing.T, rules, service string) *View {
	t.Helper()
	s, l := ruleset(t, rules)
	f, err := Find(s, service)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Look(s, f, l)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Trees and explanations of kube-proxy's own rules, of every kind.
func TestTreesAndExplanations(t *testing.T) {
	for _, c := range []struct{ rules, service string }{
		{"demo", "nginx-svc"},
		{"policies", "a/ext-local"},
		{"policies", "a/ext-local-remote"},
		{"policies", "a/int-local-remote"},
		{"policies", "a/both"},
		{"policies", "a/external-ip-local"},
		{"affinity", "a/short:http"},
		{"affinity", "a/local"},
		{"no-endpoints", "a/lb"},
		{"load-balancers", "a/ranged"},
		{"masquerade-all", "nginx-svc"},
		{"no-detection", "nginx-svc"},
	} {
		name := c.rules + "-" + strings.NewReplacer("/", "-", ":", "-").Replace(c.service)
		t.Run(name, func(t *testing.T) {
			v := look(t, c.rules, c.service)
			var b bytes.Buffer
			if err := v.WriteTree(&b, TreeOptions{}); err != nil {
				t.Fatal(err)
			}
			b.WriteString("\n")
			if err := Explain(v).Write(&b); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > treeWidth {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			golden(t, name, b.String())
		})
	}
}

// The same of the table that kube-proxy keeps in its nftables mode, as a kernel
// would list it: datapath/kubeproxy holds the plan against kube-proxy's own.
func TestTreesAndExplanationsOfNFTables(t *testing.T) {
	for _, c := range []struct{ rules, service string }{
		{"demo", "nginx-svc"},
		{"policies", "a/ext-local"},
		{"policies", "a/int-local-remote"},
		{"affinity", "a/short:http"},
		{"no-endpoints", "a/lb"},
		{"load-balancers", "a/ranged"},
		{"masquerade-all", "nginx-svc"},
	} {
		name := "nft-" + c.rules + "-" + strings.NewReplacer("/", "-", ":", "-").Replace(c.service)
		t.Run(name, func(t *testing.T) {
			s, l := ruleset(t, c.rules)
			s.Proxy.Mode = topology.ProxyNFTables
			o := kubeproxy.DefaultOptions(*s)
			o.MasqueradeAll = c.rules == "masquerade-all"
			table, err := kubeproxy.PlanNFT(*s, l.Node, o)
			if err != nil {
				t.Fatal(err)
			}
			l.NFT, l.Program = &table, "nft"
			f, err := Find(s, c.service)
			if err != nil {
				t.Fatal(err)
			}
			v, err := Look(s, f, l)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := v.WriteTree(&b, TreeOptions{Rules: true}); err != nil {
				t.Fatal(err)
			}
			b.WriteString("\n")
			if err := Explain(v).Write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got)\n%s", path, d)
	}
}
