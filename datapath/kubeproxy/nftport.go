package kubeproxy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"slipway/datapath"
)

// nftPort is a service port with the names of its chains.
type nftPort struct {
	*port
	toCluster, toLocal, toExternal, toFirewall string
}

// internalChain is where traffic to the cluster IP goes.
func (p *nftPort) internalChain() string {
	if p.internalLocal {
		return p.toLocal
	}
	return p.toCluster
}

// port writes what kube-proxy keeps for one service port (upstream
// syncProxyRules).
func (w *nftWriter) port(of *port) {
	base := nftName(of.nftBase())
	p := &nftPort{
		port: of, toCluster: nftPrefixCluster + base, toLocal: nftPrefixLocal + base,
		toExternal: nftPrefixExternal + base, toFirewall: nftPrefixFirewall + base,
	}
	w.endpoints(p)
	usesCluster, usesLocal := len(p.cluster) > 0 && p.usesCluster(), len(p.localOnly) > 0 && p.usesLocal()
	if usesCluster {
		w.chain(p.toCluster)
	}
	if usesLocal {
		w.chain(p.toLocal)
	}
	usesExternal := p.hasAny && p.accessible()
	if usesExternal {
		w.chain(p.toExternal)
	}
	w.ways(p)
	if usesExternal {
		w.external(p)
	}
	if p.filtersSources() {
		w.sources(p)
	}
	if usesCluster {
		w.balance(p, p.toCluster, p.cluster)
	}
	if usesLocal {
		w.balance(p, p.toLocal, p.localOnly)
	}
	if p.affinity == "" {
		return
	}
	for _, e := range p.reachable {
		chain := nftPrefixEndpoint + p.nftEndpoint(e)
		w.rule(chain, "update @"+nftPrefixAffinity+p.nftEndpoint(e)+" { ip saddr }", "")
		w.rule(chain, "meta l4proto "+p.protocol+" dnat to "+e.text, "")
	}
}

// endpoints notes the endpoints that are used: local ones may talk to
// themselves, and those of services with affinity have chains and sets.
func (w *nftWriter) endpoints(p *nftPort) {
	for _, e := range p.reachable {
		if p.affinity != "" {
			w.chain(nftPrefixEndpoint + p.nftEndpoint(e))
			seconds, _ := strconv.Atoi(p.affinity) // made from a number
			w.addSet(datapath.NFSet{Name: nftPrefixAffinity + p.nftEndpoint(e), Type: nftAddr, Dynamic: true, Timeout: time.Duration(seconds) * time.Second})
		}
		if e.local {
			w.element(nftHairpin, datapath.NFElement{Key: fmt.Sprintf("%s . %s . %s . %d", e.Address, e.Address, p.protocol, e.Port)})
		}
	}
}

// ways writes the elements that lead to the port's chains, or refuse.
func (w *nftWriter) ways(p *nftPort) {
	internal, external := "drop", "drop"
	if !p.hasAny {
		internal, external = "goto "+nftReject, "goto "+nftReject
	}
	at := func(a netip.Addr) string { return a.String() + " . " + p.protocol + " . " + p.number }
	refuse := func(set, key, verdict string) {
		w.element(set, datapath.NFElement{Key: key, Value: verdict, Comment: nftComment(p.name)})
	}
	w.element(nftClusterIPs, datapath.NFElement{Key: p.svc.ClusterIP.String()})
	if p.hasInternal {
		w.element(nftServiceIPs, datapath.NFElement{Key: at(p.svc.ClusterIP), Value: "goto " + p.internalChain()})
	} else {
		refuse(nftNoEndpoints, at(p.svc.ClusterIP), internal)
	}
	for _, list := range [][]netip.Addr{p.external, p.balanced} {
		for _, a := range list {
			if p.hasAny {
				w.element(nftServiceIPs, datapath.NFElement{Key: at(a), Value: "goto " + p.toExternal})
			}
			if !p.hasExt {
				refuse(nftNoEndpoints, at(a), external)
			}
		}
	}
	if p.filtersSources() {
		for _, a := range p.balanced {
			w.element(nftFirewallIPs, datapath.NFElement{Key: at(a), Value: "goto " + p.toFirewall})
		}
	}
	if p.nodePort == 0 {
		return
	}
	key := p.protocol + " . " + strconv.Itoa(p.nodePort)
	if p.hasAny {
		w.element(nftServiceNodePorts, datapath.NFElement{Key: key, Value: "goto " + p.toExternal})
	}
	if !p.hasExt {
		refuse(nftNoEndpointPorts, key, external)
	}
}

// filtersSources: unlike the iptables mode, this one filters also where there
// is no endpoint (upstream usesFWChain).
func (p *port) filtersSources() bool { return len(p.balanced) > 0 && len(p.sources) > 0 }

// external writes the chain of traffic to node ports, external addresses and
// load balancers.
func (w *nftWriter) external(p *nftPort) {
	policy := p.toCluster
	if !p.externalLocal {
		w.rule(p.toExternal, w.masquerade(), "masquerade")
	} else {
		// The node itself and its pods are not held to the policy.
		policy = p.toLocal
		if w.ClusterCIDR.IsValid() {
			w.rule(p.toExternal, "ip saddr "+w.ClusterCIDR.String()+" goto "+p.toCluster, "short-circuit pod traffic")
		}
		w.rule(p.toExternal, "fib saddr type local "+w.masquerade(), "masquerade local traffic")
		w.rule(p.toExternal, "fib saddr type local goto "+p.toCluster, "short-circuit local traffic")
	}
	if p.hasExt {
		w.rule(p.toExternal, "goto "+policy, "")
	}
}

// sources writes the chain that drops what comes to the load balancer's
// addresses from outside the allowed ranges.
func (w *nftWriter) sources(p *nftPort) {
	w.chain(p.toFirewall)
	var from []string
	ownNode := false
	for _, r := range p.sources {
		from = append(from, r.String())
		ownNode = ownNode || r.Contains(w.nodeIP)
	}
	if ownNode {
		// From the node itself the balancer's address is also the source.
		for _, a := range p.balanced {
			from = append(from, a.String())
		}
	}
	w.rule(p.toFirewall, "ip saddr != { "+strings.Join(from, " , ")+" } drop", "")
}

// balance writes a policy chain: with affinity remembered clients first, then
// one endpoint in n.
func (w *nftWriter) balance(p *nftPort, chain string, endpoints []endpoint) {
	var b strings.Builder
	if p.affinity == "" {
		fmt.Fprintf(&b, "meta l4proto %s dnat ip addr . port to numgen random mod %d map {", p.protocol, len(endpoints))
	} else {
		fmt.Fprintf(&b, "numgen random mod %d vmap {", len(endpoints))
	}
	for i, e := range endpoints {
		if i > 0 {
			b.WriteString(" ,")
		}
		if p.affinity == "" {
			fmt.Fprintf(&b, " %d : %s . %d", i, e.Address, e.Port)
			continue
		}
		name := p.nftEndpoint(e)
		w.rule(chain, "ip saddr @"+nftPrefixAffinity+name+" goto "+nftPrefixEndpoint+name, "")
		fmt.Fprintf(&b, " %d : goto %s%s", i, nftPrefixEndpoint, name)
	}
	w.rule(chain, b.String()+" }", "")
}
