package kubeproxy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// TestNFTablesAreKubeProxys: nft prints the same table of both, but for handles,
// counters, and the order in which chains, sets and a set's elements come.
func TestNFTablesAreKubeProxys(t *testing.T) {
	testnet.Need(t, testnet.NFT)
	cases := corpus(t)
	everywhere := cases["everyday/node01"]
	everywhere.Options.NodePortsEverywhere = true
	cases["everyday/node ports everywhere"] = everywhere
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			real, _, _ := theirs(t, c, "nftables")
			own, host := ours(t)
			table, err := kubeproxy.PlanNFT(c.Snapshot, c.Node, c.Options)
			if err != nil {
				t.Fatal(err)
			}
			apply(t, host, datapath.NodeConfig{Node: c.Node, RuleSets: []datapath.RuleSet{{Owner: kubeproxy.Owner, NFT: &table}}})
			if diff := cmp.Diff(nftables(t, real), nftables(t, own)); diff != "" {
				t.Errorf("our table is not kube-proxy's (-kube-proxy +slipway):\n%s", diff)
			}
		})
	}
}

// nftables is the namespace's table, by chain, set and map: rules in order,
// elements sorted, everything else that nft says of them first.
func nftables(t *testing.T, ns *netns.NS) map[string][]string {
	t.Helper()
	var listing struct {
		Objects []map[string]map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(output(t, ns, "nft", "-j", "list", "table", "ip", kubeproxy.NFTTable)), &listing); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, o := range listing.Objects {
		for kind, fields := range o {
			if kind == "metainfo" {
				continue
			}
			delete(fields, "handle")
			name := kind + " " + text(fields["name"])
			if kind == "rule" {
				name = "chain " + text(fields["chain"])
			}
			var elements []json.RawMessage
			if raw, ok := fields["elem"]; ok {
				if err := json.Unmarshal(raw, &elements); err != nil {
					t.Fatal(err)
				}
				delete(fields, "elem")
			}
			out[name] = append(out[name], uncounted(t, fields))
			var sorted []string
			for _, e := range elements {
				sorted = append(sorted, string(e))
			}
			slices.Sort(sorted)
			out[name] = append(out[name], sorted...)
		}
	}
	return out
}

func text(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }

// uncounted prints fields in the order of their names, with counters at zero.
func uncounted(t *testing.T, fields map[string]json.RawMessage) string {
	t.Helper()
	raw, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	var any any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&any); err != nil {
		t.Fatal(err)
	}
	zero(any)
	if raw, err = json.Marshal(any); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func zero(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range []string{"packets", "bytes"} {
			if _, ok := v[name].(json.Number); ok {
				v[name] = 0
			}
		}
		for _, x := range v {
			zero(x)
		}
	case []any:
		for _, x := range v {
			zero(x)
		}
	}
}
