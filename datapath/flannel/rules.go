package flannel

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// kubeProxyMark is kube-proxy's "masquerade this" mark
// (flannel pkg/trafficmngr/trafficmngr.go, KubeProxyMark).
const kubeProxyMark = "0x4000/0x4000"

// rules are flanneld's iptables rules in its own order (flannel
// pkg/trafficmngr/iptables/iptables.go, masqRules and forwardRules): what
// leaves the pod network is masqueraded, what stays inside is not.
func rules(cluster, own netip.Prefix) datapath.RuleSet {
	const (
		masq    = `-m comment --comment "flanneld masq" `
		forward = `-m comment --comment "flanneld forward" `
	)
	in := func(format string, args ...any) string { return "-A FLANNEL-POSTRTG " + fmt.Sprintf(format, args...) }
	return datapath.RuleSet{Owner: "flannel", Tables: []datapath.RuleTable{{
		Name:   "nat",
		Chains: []string{"FLANNEL-POSTRTG"},
		Rules: []string{
			// kube-proxy masquerades these itself; twice trips some kernels.
			in("-m mark --mark %s "+masq+"-j RETURN", kubeProxyMark),
			in("-s %s -d %s "+masq+"-j RETURN", own, cluster),
			in("-s %s -d %s "+masq+"-j RETURN", cluster, own),
			// From outside to our own pods: the source stays visible.
			in("! -s %s -d %s "+masq+"-j RETURN", cluster, own),
			in("-s %s ! -d 224.0.0.0/4 "+masq+"-j MASQUERADE --random-fully", cluster),
			// From this host into the pod network.
			in("! -s %s -d %s "+masq+"-j MASQUERADE --random-fully", cluster, cluster),
		},
		Jumps: []datapath.Jump{{Rule: "-A POSTROUTING " + masq + "-j FLANNEL-POSTRTG"}},
	}, {
		Name:   "filter",
		Chains: []string{"FLANNEL-FWD"},
		Rules: []string{
			fmt.Sprintf("-A FLANNEL-FWD -s %s "+forward+"-j ACCEPT", cluster),
			fmt.Sprintf("-A FLANNEL-FWD -d %s "+forward+"-j ACCEPT", cluster),
		},
		Jumps: []datapath.Jump{{Rule: "-A FORWARD " + forward + "-j FLANNEL-FWD"}},
	}}}
}
