package kubeproxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"

	"slipway/datapath"
	"slipway/topology"
)

// dumped is what a table comes to, in knftables' own order of chains and sets.
// Elements are sorted: kube-proxy adds them in the order of a Go map.
func dumped(t *testing.T, commands string) []string {
	t.Helper()
	f := knftables.NewFake(knftables.IPv4Family, NFTTable)
	if err := f.ParseDump(commands); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(f.Dump(), "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		const element = "add element "
		if strings.HasPrefix(a, element) && strings.HasPrefix(b, element) {
			return strings.Compare(a, b)
		}
		return 0
	})
	return lines
}

// The planned table is the one that kube-proxy's own Proxier made in knftables'
// fake for the same objects (testdata/README.md).
func TestTableEqualsKubeProxy(t *testing.T) {
	for name, g := range goldens(t) {
		want, ok := text(t, name+".nft.golden")
		if !ok {
			continue // the case is about iptables alone
		}
		t.Run(name, func(t *testing.T) {
			o := g.Options
			o.Mode, o.ServiceCIDR = topology.ProxyNFTables, g.Snapshot.Network.ServiceCIDR
			set, err := Plan(g.Snapshot, g.Node, o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(dumped(t, want), dumped(t, asDump(set))); d != "" {
				t.Errorf("differs from kube-proxy (-kube-proxy +slipway):\n%s", d)
			}
		})
	}
}

func asDump(set datapath.RuleSet) string {
	var b strings.Builder
	for _, c := range set.Commands() {
		b.WriteString(strings.TrimPrefix(c, "nft ") + "\n")
	}
	return b.String()
}

// nft refuses a comment of more than 128 bytes, and with it all rules.
func TestCommentsOfLongNamesAreCut(t *testing.T) {
	long := strings.Repeat("x", 63)
	s := topology.Snapshot{
		Nodes: []topology.NodeState{{Node: topology.Node{Name: "n"}}},
		Services: []topology.Service{{
			Namespace: long, Name: long, Type: topology.ClusterIP, ClusterIP: netip.MustParseAddr("10.96.0.9"),
			Ports: []topology.ServicePort{{Name: long, Port: 80, Protocol: topology.TCPProtocol}},
		}},
	}
	table, err := PlanNFT(s, "n", DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(table.Sets, func(s datapath.NFSet) bool { return s.Name == nftNoEndpoints })
	if got, want := table.Sets[i].Elements[0].Comment, long+"/"+long[:61]+"..."; got != want {
		t.Errorf("comment %q, want %q", got, want)
	}
}
