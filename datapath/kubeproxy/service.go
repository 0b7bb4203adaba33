package kubeproxy

import (
	"strconv"
	"strings"
)

// comment is a comment match in quotes, as kube-proxy writes those with spaces.
func comment(text string) string { return `-m comment --comment "` + text + `"` }

// match selects the port's protocol, a destination unless empty, and a
// destination port, in kube-proxy's order.
func (p *port) match(dst, number string) string {
	if dst != "" {
		dst = " -d " + dst
	}
	return "-m " + p.protocol + " -p " + p.protocol + dst + " --dport " + number
}

func (p *port) internalChain() string {
	if p.internalLocal {
		return p.localChain
	}
	return p.clusterChain
}

// local is the match of traffic from the cluster's pods ("!" for its
// opposite), empty where kube-proxy cannot tell.
func (w *writer) local(not string) string {
	if !w.ClusterCIDR.IsValid() {
		return ""
	}
	return strings.TrimSpace(not + " -s " + w.ClusterCIDR.String())
}

// internal masquerades what reaches the cluster IP from outside the cluster, so
// that a node can route for the service range.
func (w *writer) internal(p *port) {
	from := w.local("!")
	if w.MasqueradeAll {
		from = ""
	} else if from == "" {
		return
	}
	w.nat.rule(p.internalChain(), comment(p.name+" cluster IP"), p.match(p.svc.ClusterIP.String(), p.number),
		from, "-j", chainMarkMasq)
}

// external writes the chain of traffic to node ports, external addresses and
// load balancers.
func (w *writer) external(p *port) {
	w.nat.chain(p.externalChain)
	about := func(what string) string { return comment(what + " for " + p.name + " external destinations") }
	policy := p.clusterChain
	if !p.externalLocal {
		w.nat.rule(p.externalChain, about("masquerade traffic"), "-j", chainMarkMasq)
	} else {
		// The node itself and its pods are not held to the policy.
		policy = p.localChain
		if from := w.local(""); from != "" {
			w.nat.rule(p.externalChain, about("pod traffic"), from, "-j", p.clusterChain)
		}
		w.nat.rule(p.externalChain, about("masquerade LOCAL traffic"), "-m addrtype --src-type LOCAL -j", chainMarkMasq)
		w.nat.rule(p.externalChain, about("route LOCAL traffic"), "-m addrtype --src-type LOCAL -j", p.clusterChain)
	}
	if p.hasExt {
		w.nat.rule(p.externalChain, "-j", policy)
	}
}

// sources writes the chain that lets only loadBalancerSourceRanges through to
// the load balancer's addresses; the rest is dropped in KUBE-PROXY-FIREWALL.
func (w *writer) sources(p *port) {
	w.nat.chain(p.sourceChain)
	from := func(src string) {
		w.nat.rule(p.sourceChain, comment(p.name+" loadbalancer IP"), "-s", src, "-j", p.externalChain)
	}
	ownNode := false
	for _, r := range p.sources {
		from(r.String())
		ownNode = ownNode || r.Contains(w.nodeIP)
	}
	if ownNode {
		// From the node itself the balancer's address is also the source.
		for _, a := range p.balanced {
			from(a.String())
		}
	}
	w.nat.rule(p.sourceChain, comment("other traffic to "+p.name+" will be dropped by KUBE-PROXY-FIREWALL"))
}

// balance writes a policy chain: affinity first, then one endpoint in n.
func (w *writer) balance(p *port, chain string, endpoints []endpoint) {
	w.nat.chain(chain)
	if p.affinity != "" {
		for _, e := range endpoints {
			w.nat.rule(chain, w.unlessLarge(comment(p.name+" -> "+e.text)), "-m recent --name", e.chain,
				"--rcheck --seconds", p.affinity, "--reap -j", e.chain)
		}
	}
	for i, e := range endpoints {
		share := ""
		if left := len(endpoints) - i; left > 1 {
			share = "-m statistic --mode random --probability " + strconv.FormatFloat(1/float64(left), 'f', 10, 64)
		}
		w.nat.rule(chain, w.unlessLarge(comment(p.name+" -> "+e.text)), share, "-j", e.chain)
	}
}

// endpoint writes an endpoint's chain: a pod that reaches itself is
// masqueraded, affinity remembered, the destination rewritten.
func (w *writer) endpoint(p *port, e endpoint) {
	w.nat.chain(e.chain)
	about := w.unlessLarge("-m comment --comment " + p.name)
	w.nat.rule(e.chain, about, "-s", e.Address.String(), "-j", chainMarkMasq)
	remember := ""
	if p.affinity != "" {
		remember = "-m recent --name " + e.chain + " --set"
	}
	w.nat.rule(e.chain, about, remember, "-m", p.protocol, "-p", p.protocol, "-j DNAT --to-destination", e.text)
}

func (w *writer) unlessLarge(about string) string {
	if w.large {
		return ""
	}
	return about
}
