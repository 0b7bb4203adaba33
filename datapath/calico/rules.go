package calico

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// rules are the part of felix's iptables rules that carries traffic; without
// network policies the rest only accepts. Chains have felix's names. Where felix
// matches an ipset of all pools, the one pool's CIDR stands.
//
//   - cali-nat-outgoing masquerades what leaves the pool (felix rules/nat.go,
//     NATOutgoingChain);
//   - with a tunnel, cali-POSTROUTING gives the tunnel's address to what the
//     node itself sends through it from another one, such as a connection to a
//     service, whose source is chosen before its destination is translated
//     (felix rules/static.go, StaticNATPostroutingChains);
//   - cali-FORWARD accepts what comes from and goes to pods (felix
//     rules/static.go, StaticFilterForwardAppendRules).
func rules(pool netip.Prefix, tunnel string) datapath.RuleSet {
	nat := datapath.RuleTable{
		Name:   "nat",
		Chains: []string{"cali-POSTROUTING", "cali-nat-outgoing"},
		Rules:  []string{"-A cali-POSTROUTING -j cali-nat-outgoing"},
		Jumps:  []datapath.Jump{{Rule: "-A POSTROUTING -j cali-POSTROUTING", Prepend: true}},
	}
	if tunnel != "" {
		nat.Rules = append(nat.Rules, fmt.Sprintf("-A cali-POSTROUTING -o %s -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE --random-fully", tunnel))
	}
	nat.Rules = append(nat.Rules, fmt.Sprintf("-A cali-nat-outgoing -s %s ! -d %s -j MASQUERADE --random-fully", pool, pool))
	return datapath.RuleSet{Owner: "calico", Tables: []datapath.RuleTable{nat, {
		Name:   "filter",
		Chains: []string{"cali-FORWARD"},
		Rules:  []string{"-A cali-FORWARD -i cali+ -j ACCEPT", "-A cali-FORWARD -o cali+ -j ACCEPT"},
		Jumps:  []datapath.Jump{{Rule: "-A FORWARD -j cali-FORWARD"}},
	}}}
}
