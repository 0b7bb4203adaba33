package kubeproxy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/bench/realproxy"
	"slipway/topology"
)

// TestIPTablesAreKubeProxys: what the kernel holds once we have loaded our rules
// is what it holds once kube-proxy has, as iptables-save prints it, but for
// counters and for the order in which services come (see canonical).
func TestIPTablesAreKubeProxys(t *testing.T) {
	for name, c := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			real, _, _ := theirs(t, c, "iptables")
			own, host := ours(t)
			c.Options.NFAcct = makeCounters(own) == nil // as kube-proxy finds out
			rules, err := kubeproxy.Plan(c.Snapshot, c.Node, c.Options)
			if err != nil {
				t.Fatal(err)
			}
			apply(t, host, datapath.NodeConfig{Node: c.Node, RuleSets: []datapath.RuleSet{rules}})
			same(t, real, own)
		})
	}
}

// TestIPTablesFollowChanges: endpoints come and go, which kube-proxy follows
// without writing everything anew, and so do we.
func TestIPTablesFollowChanges(t *testing.T) {
	c := one{Node: "node01", Snapshot: manifests(t, "testdata/everyday.yaml")}
	c.Options = kubeproxy.DefaultOptions(c.Snapshot)
	real, api, proxy := theirs(t, c, "iptables")
	own, host := ours(t)
	c.Options.NFAcct = makeCounters(own) == nil
	for _, keep := range []int{1, 0, 2} {
		i := slices.IndexFunc(c.Snapshot.Services, func(s topology.Service) bool { return s.Name == "web" })
		web := c.Snapshot.Services[i]
		web.Ports = slices.Clone(web.Ports)
		all := web.Ports[0].Endpoints
		if len(all) != 3 {
			t.Fatalf("web has %d endpoints, want 3", len(all))
		}
		changed := c.Snapshot
		changed.Services = slices.Clone(changed.Services)
		changed.Services[i] = web
		slice := realproxy.Slices(&web)[0]
		slice.Endpoints = slice.Endpoints[:keep]
		web.Ports[0].Endpoints = all[:keep]
		if err := api.Put(slice); err != nil {
			t.Fatal(err)
		}
		next(t, proxy)
		rules, err := kubeproxy.Plan(changed, c.Node, c.Options)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, host, datapath.NodeConfig{Node: c.Node, RuleSets: []datapath.RuleSet{rules}})
		same(t, real, own)
	}
}

// same compares the rules of both namespaces. kube-proxy's canary chains are
// another goroutine's and may come later than its rules.
func same(t *testing.T, real, own *netns.NS) {
	t.Helper()
	testnet.Eventually(t, patience, "kube-proxy's canary chains", func() (bool, string) {
		all := output(t, real, saveProgram)
		return strings.Count(all, ":KUBE-PROXY-CANARY ") == 3, all
	})
	if diff := cmp.Diff(tables(t, real), tables(t, own)); diff != "" {
		t.Errorf("our rules are not kube-proxy's (-kube-proxy +slipway):\n%s", diff)
	}
}

// tables are the namespace's rules in canonical form.
func tables(t *testing.T, ns *netns.NS) []string {
	t.Helper()
	var out []string
	for _, table := range []string{"mangle", "filter", "nat"} {
		out = append(out, canonical(output(t, ns, saveProgram, "-t", table))...)
	}
	return out
}

// saveProgram is the one that datapath/linux prefers.
const saveProgram = "iptables-legacy-save"

var (
	counters    = regexp.MustCompile(` \[\d+:\d+\]$`)
	servicePort = regexp.MustCompile(`^-A \S+ .*--comment "?([^" ]+/[^" ]+)`)
)

// canonical drops comments and counters from what iptables-save printed, and
// sorts what kube-proxy writes in the random order of a Go map: in the chains
// that all services share, the services (or rather their ports). The rules of
// one service port keep their order, and rules of no service keep their places.
func canonical(save string) []string {
	var out []string
	var places []int
	for line := range strings.Lines(save) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if shared(line) && servicePort.MatchString(line) {
			places = append(places, len(out))
		}
		out = append(out, counters.ReplaceAllString(line, ""))
	}
	rules := make([]string, len(places))
	for i, at := range places {
		rules[i] = out[at]
	}
	key := func(rule string) string { return chainOf(rule) + " " + servicePort.FindStringSubmatch(rule)[1] }
	slices.SortStableFunc(rules, func(a, b string) int { return strings.Compare(key(a), key(b)) })
	for i, at := range places {
		out[at] = rules[i]
	}
	return out
}

// shared reports whether it is a rule of a chain that all services share.
func shared(line string) bool {
	switch chainOf(line) {
	case "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL":
		return true
	}
	return false
}

func chainOf(rule string) string {
	rest, _ := strings.CutPrefix(rule, "-A ")
	chain, _, _ := strings.Cut(rest, " ")
	return chain
}
