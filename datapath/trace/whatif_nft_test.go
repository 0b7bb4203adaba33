package trace_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/topology"
)

// In kube-proxy's nftables mode an edit of services plans the table anew.
func TestReplanOfNFTables(t *testing.T) {
	n, s := handCluster(t)
	s.Proxy.Mode = topology.ProxyNFTables
	after := *s
	after.Services = nil
	set, err := kubeproxy.Plan(after, "node01", kubeproxy.DefaultOptions(after))
	if err != nil {
		t.Fatal(err)
	}
	st := stateOf(t, edited(t, n, s, "delete service default/web"), "node01")
	if d := cmp.Diff([]datapath.NFTable{*set.NFT}, st.NFTPlanned); d != "" {
		t.Errorf("(-planned +edited)\n%s", d)
	}
}
