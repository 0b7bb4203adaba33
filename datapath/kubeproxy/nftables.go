package kubeproxy

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// PlanNFT computes the table that kube-proxy v1.36 keeps on the node in its
// nftables mode (upstream pkg/proxy/nftables/proxier.go), with rules spelled as
// kube-proxy spells them, and elements in the snapshot's order.
func PlanNFT(s topology.Snapshot, node string, o Options) (datapath.NFTable, error) {
	n, ok := s.NodeByName(node)
	if !ok {
		return datapath.NFTable{}, fmt.Errorf("kube-proxy rules of node %s: no such node", node)
	}
	if o.MasqueradeBit < 0 || o.MasqueradeBit > 31 {
		return datapath.NFTable{}, fmt.Errorf("kube-proxy rules of node %s: masquerade bit %d is not in 0-31", node, o.MasqueradeBit)
	}
	w := &nftWriter{Options: o, nodeIP: n.Address, mark: fmt.Sprintf("%#08x", uint32(1)<<o.MasqueradeBit), chains: map[string]int{}, sets: map[string]int{}, seen: map[[2]string]bool{}}
	w.out = datapath.NFTable{Family: "ip", Name: NFTTable, Comment: "rules for kube-proxy"}
	w.containers()
	w.fixedChains()
	ports := portsOf(s, n)
	for i := range ports {
		w.port(&ports[i])
	}
	return w.out, nil
}

// nftWriter collects a node's table.
type nftWriter struct {
	Options
	nodeIP netip.Addr
	mark   string // "0x00004000"
	out    datapath.NFTable
	chains map[string]int // place in out
	sets   map[string]int
	seen   map[[2]string]bool // set and key of an element
}

func (w *nftWriter) chain(name string) {
	if _, ok := w.chains[name]; !ok {
		w.addChain(datapath.NFChain{Name: name})
	}
}

func (w *nftWriter) addChain(c datapath.NFChain) {
	w.chains[c.Name] = len(w.out.Chains)
	w.out.Chains = append(w.out.Chains, c)
}

func (w *nftWriter) rule(chain, text, comment string) {
	c := &w.out.Chains[w.chains[chain]]
	c.Rules = append(c.Rules, datapath.NFRule{Text: text, Comment: comment})
}

func (w *nftWriter) addSet(s datapath.NFSet) {
	w.sets[s.Name] = len(w.out.Sets)
	w.out.Sets = append(w.out.Sets, s)
}

// element adds to a set or map; of one key the last value counts, as it does
// where kube-proxy writes it twice.
func (w *nftWriter) element(set string, e datapath.NFElement) {
	s := &w.out.Sets[w.sets[set]]
	id := [2]string{set, e.Key}
	if w.seen[id] {
		for i := range s.Elements {
			if s.Elements[i].Key == e.Key {
				s.Elements[i] = e
			}
		}
		return
	}
	w.seen[id] = true
	s.Elements = append(s.Elements, e)
}

// containers makes the sets and maps that every table has.
func (w *nftWriter) containers() {
	w.addSet(datapath.NFSet{Name: nftClusterIPs, Type: nftAddr, Comment: "Active ClusterIPs"})
	if !w.NodePortsEverywhere {
		w.addSet(datapath.NFSet{Name: nftNodePortIPs, Type: nftAddr, Comment: "IPs that accept NodePort traffic"})
		w.element(nftNodePortIPs, datapath.NFElement{Key: w.nodeIP.String()})
	}
	w.addSet(datapath.NFSet{Name: nftHairpin, Type: "ipv4_addr . ipv4_addr . inet_proto . inet_service", Comment: "service hairpin connections"})
	for _, m := range []datapath.NFSet{
		{Name: nftFirewallIPs, Type: nftAddrPort, Comment: "destinations that are subject to LoadBalancerSourceRanges"},
		{Name: nftNoEndpointPorts, Type: nftAnyPort, Comment: "vmap to drop or reject packets to service nodeports with no endpoints"},
		{Name: nftNoEndpoints, Type: nftAddrPort, Comment: "vmap to drop or reject packets to services with no endpoints"},
		{Name: nftServiceIPs, Type: nftAddrPort, Comment: "ClusterIP, ExternalIP and LoadBalancer IP traffic"},
		{Name: nftServiceNodePorts, Type: nftAnyPort, Comment: "NodePort traffic"},
	} {
		m.Value = nftVerdict
		w.addSet(m)
	}
}

// fixedChains makes the chains that every table has (upstream setupNFTables).
func (w *nftWriter) fixedChains() {
	for _, c := range nftBaseChains {
		w.addChain(c)
	}
	for _, c := range []string{nftNodePortsCheck, nftEndpointsCheck, nftFirewallCheck, nftServices, nftMasquerading, nftClusterIPsCheck} {
		w.chain(c)
	}
	w.addChain(datapath.NFChain{Name: nftReject, Comment: "helper for @no-endpoint-services / @no-endpoint-nodeports"})
	for _, j := range nftJumps {
		w.rule(j.from, j.when+"jump "+j.to, "")
	}
	w.rule(nftMasquerading, "mark and "+w.mark+" != 0 mark set mark xor "+w.mark+" "+nftMasqueradeOutcome, "")
	w.rule(nftMasquerading, "ct status dnat ip saddr . ip daddr . meta l4proto . th dport @"+nftHairpin+" "+nftMasqueradeOutcome, "")
	w.rule(nftClusterIPsCheck, "ip daddr @"+nftClusterIPs+" reject", "Reject traffic to invalid ports of ClusterIPs")
	if w.ServiceCIDR.IsValid() {
		w.rule(nftClusterIPsCheck, "ip daddr { "+w.ServiceCIDR.String()+" } drop", "Drop traffic to unallocated ClusterIPs")
	}
	w.rule(nftReject, "reject", "")
	w.rule(nftEndpointsCheck, nftByAddrPort+nftNoEndpoints, "")
	w.rule(nftFirewallCheck, nftByAddrPort+nftFirewallIPs, "")
	if w.MasqueradeAll {
		w.rule(nftServices, "ip daddr @"+nftClusterIPs+" "+w.masquerade(), "masquerade all clusterIP traffic")
	} else if w.ClusterCIDR.IsValid() {
		w.rule(nftServices, "ip daddr @"+nftClusterIPs+" ip saddr != "+w.ClusterCIDR.String()+" "+w.masquerade(),
			"masquerade clusterIP traffic from outside cluster")
	}
	w.rule(nftServices, nftByAddrPort+nftServiceIPs, "")
	toNode := "ip daddr @" + nftNodePortIPs
	check := toNode
	if w.NodePortsEverywhere {
		toNode, check = "fib daddr type local "+nftNoLocalhost, nftNoLocalhost
	}
	w.rule(nftServices, toNode+" "+nftByPort+nftServiceNodePorts, "")
	w.rule(nftNodePortsCheck, check+" "+nftByPort+nftNoEndpointPorts, "")
}

// masquerade is the statement that asks for it at the end.
func (w *nftWriter) masquerade() string { return "mark set mark or " + w.mark }
