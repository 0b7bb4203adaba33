package peers

import (
	"testing"

	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab/bench/report"
)

// TestKubeProxyIsMeasured: one round of the smallest size in each mode. The
// section itself looks at the kernel's rules and fails if any are missing.
func TestKubeProxyIsMeasured(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.NFT)
	built, err := components.Lookup(t.Context(), "kube-proxy")
	if err != nil {
		testnet.Lacks(t, testnet.KubeProxy, err)
	}
	all := serviceCounts
	serviceCounts = all[:1]
	defer func() { serviceCounts = all }()
	r, err := runKubeProxy(t.Context(), Options{Rounds: 1, Binary: func(_, program string) string { return built.Path(program) }})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[3]string]bool{}
	for _, s := range r.Series {
		seen[[3]string{s.Variant, s.Workload, s.Params["mode"]}] = true
		for _, m := range s.Metrics {
			v := report.Values(m.Rounds)
			if len(v) != 1 || v[0] < 0 || m.Name == syncTime && v[0] == 0 {
				t.Errorf("%s, %s, %s: %s is %v", s.Variant, s.Workload, s.Params["mode"], m.Name, v)
			}
		}
	}
	if len(seen) != 8 { // two variants, two workloads, two modes
		t.Errorf("measured %v", seen)
	}
}
