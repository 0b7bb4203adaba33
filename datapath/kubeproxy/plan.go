package kubeproxy

import (
	"fmt"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// Owner is the owner of the planned rule set.
const Owner = "kube-proxy"

// Plan computes kube-proxy's share of the node's rules, in the mode of the
// options: its nftables table (see [PlanNFT]), or iptables rules spelled as
// iptables-save prints them, with jumps in the order in which the built-in
// chains hold them.
func Plan(s topology.Snapshot, node string, o Options) (datapath.RuleSet, error) {
	if o.Mode == topology.ProxyNFTables {
		t, err := PlanNFT(s, node, o)
		if err != nil {
			return datapath.RuleSet{}, err
		}
		return datapath.RuleSet{Owner: Owner, NFT: &t}, nil
	}
	w, err := write(s, node, o)
	if err != nil {
		return datapath.RuleSet{}, err
	}
	if !o.LocalhostNodePorts {
		w.filter.chain(chainFirewall) // kube-proxy makes it in any case, empty
	}
	set := datapath.RuleSet{Owner: Owner, Tables: []datapath.RuleTable{{Name: "mangle", Chains: []string{chainCanary}}}}
	var p ruleParser
	for _, t := range []*table{&w.filter, &w.nat} {
		out := datapath.RuleTable{Name: t.name, Chains: append(t.chains, chainCanary), Jumps: jumps(t.name)}
		out.Rules = make([]string, len(t.rules))
		for i, r := range t.rules {
			if out.Rules[i], err = saveForm(&p, r); err != nil {
				return datapath.RuleSet{}, fmt.Errorf("kube-proxy rules of node %s: %w", node, err)
			}
		}
		set.Tables = append(set.Tables, out)
	}
	return set, nil
}

// jump is one way from a built-in chain into kube-proxy's.
type jump struct {
	table, to, from string
	match           string
	comment         string
}

const newOnly = "-m conntrack --ctstate NEW"

// builtinJumps are in the order in which kube-proxy makes them (upstream
// iptablesJumpChains, iptablesKubeletJumpChains), each before all others: the
// last is the first in its chain.
var builtinJumps = []jump{
	{"filter", chainExternal, "INPUT", newOnly, "kubernetes externally-visible service portals"},
	{"filter", chainExternal, "FORWARD", newOnly, "kubernetes externally-visible service portals"},
	{"filter", chainNodePorts, "INPUT", "", "kubernetes health check service ports"},
	{"filter", chainServices, "FORWARD", newOnly, "kubernetes service portals"},
	{"filter", chainServices, "OUTPUT", newOnly, "kubernetes service portals"},
	{"filter", chainForward, "FORWARD", "", "kubernetes forwarding rules"},
	{"filter", chainLBFirewall, "INPUT", newOnly, "kubernetes load balancer firewall"},
	{"filter", chainLBFirewall, "OUTPUT", newOnly, "kubernetes load balancer firewall"},
	{"filter", chainLBFirewall, "FORWARD", newOnly, "kubernetes load balancer firewall"},
	{"nat", chainServices, "OUTPUT", "", "kubernetes service portals"},
	{"nat", chainServices, "PREROUTING", "", "kubernetes service portals"},
	{"nat", chainPostrouting, "POSTROUTING", "", "kubernetes postrouting rules"},
	{"filter", chainFirewall, "INPUT", "", ""},
	{"filter", chainFirewall, "OUTPUT", "", ""},
}

func jumps(table string) []datapath.Jump {
	var out []datapath.Jump
	for i := len(builtinJumps) - 1; i >= 0; i-- {
		j := builtinJumps[i]
		if j.table != table {
			continue
		}
		words := []string{"-A", j.from}
		if j.match != "" {
			words = append(words, j.match)
		}
		if j.comment != "" {
			words = append(words, comment(j.comment))
		}
		words = append(words, "-j", j.to)
		out = append(out, datapath.Jump{Rule: strings.Join(words, " "), Prepend: true})
	}
	return out
}
