package kubeproxy

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"slipway/topology"
)

// Render gives what kube-proxy v1.36 feeds to `iptables-restore --noflush
// --counters` at a full sync on the node, byte for byte, with the service ports
// in the snapshot's order. The jumps from built-in chains are not part of it:
// kube-proxy makes those one by one (see [Plan]).
func Render(s topology.Snapshot, node string, o Options) ([]byte, error) {
	w, err := write(s, node, o)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, t := range []*table{&w.filter, &w.nat} {
		b.WriteString("*" + t.name + "\n")
		for _, c := range t.chains {
			b.WriteString(":" + c + " - [0:0]\n")
		}
		for _, r := range t.rules {
			b.WriteString(r + "\n")
		}
		b.WriteString("COMMIT\n")
	}
	return b.Bytes(), nil
}

// table collects one table in kube-proxy's order and spelling.
type table struct {
	name   string
	chains []string
	rules  []string
}

func (t *table) chain(names ...string) { t.chains = append(t.chains, names...) }

// rule appends "-A CHAIN" with the words, each a token or several.
func (t *table) rule(chain string, words ...string) {
	n := len("-A ") + len(chain)
	for _, w := range words {
		n += 1 + len(w)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteString("-A ")
	b.WriteString(chain)
	for _, w := range words {
		if w != "" {
			b.WriteByte(' ')
			b.WriteString(w)
		}
	}
	t.rules = append(t.rules, b.String())
}

// writer renders one node's rules.
type writer struct {
	Options
	nodeIP      netip.Addr
	mark        string // "0x00004000"
	large       bool   // large cluster: no comments in endpoint chains
	filter, nat table
}

func write(s topology.Snapshot, node string, o Options) (*writer, error) {
	n, ok := s.NodeByName(node)
	if !ok {
		return nil, fmt.Errorf("kube-proxy rules of node %s: no such node", node)
	}
	if o.MasqueradeBit < 0 || o.MasqueradeBit > 31 {
		return nil, fmt.Errorf("kube-proxy rules of node %s: masquerade bit %d is not in 0-31", node, o.MasqueradeBit)
	}
	w := &writer{Options: o, nodeIP: n.Address, mark: fmt.Sprintf("%#08x", uint32(1)<<o.MasqueradeBit)}
	w.filter.name, w.nat.name = "filter", "nat"
	ports := portsOf(s, n)
	known := 0
	for i := range ports {
		known += ports[i].known
	}
	w.large = known > largeClusterEndpoints
	w.head()
	for i := range ports {
		w.port(&ports[i])
	}
	w.tail()
	return w, nil
}

// head writes what comes before the services.
func (w *writer) head() {
	w.filter.chain(chainServices, chainExternal, chainForward, chainNodePorts, chainLBFirewall)
	w.nat.chain(chainServices, chainNodePorts, chainPostrouting, chainMarkMasq)
	w.nat.rule(chainPostrouting, "-m mark ! --mark", w.mark+"/"+w.mark, "-j RETURN")
	w.nat.rule(chainPostrouting, "-j MARK --xor-mark", w.mark)
	randomFully := ""
	if w.RandomFully {
		randomFully = "--random-fully"
	}
	w.nat.rule(chainPostrouting, comment("kubernetes service traffic requiring SNAT"), "-j MASQUERADE", randomFully)
	w.nat.rule(chainMarkMasq, "-j MARK --or-mark", w.mark)
	if w.LocalhostNodePorts {
		// route_localnet would let neighbours reach 127.0.0.0/8 (kubernetes issue 90259)
		w.filter.chain(chainFirewall)
		w.filter.rule(chainFirewall, comment("block incoming localnet connections"),
			"-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP")
	}
}

// tail writes what comes after the services.
func (w *writer) tail() {
	notLocalhost := ""
	if !w.LocalhostNodePorts {
		notLocalhost = "! -d 127.0.0.0/8"
	}
	w.nat.rule(chainServices, comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain"),
		"-m addrtype --dst-type LOCAL", notLocalhost, "-j", chainNodePorts)
	if !w.TCPBeLiberal {
		count := ""
		if w.NFAcct {
			count = "-m nfacct --nfacct-name " + counterInvalid
		}
		w.filter.rule(chainForward, "-m conntrack --ctstate INVALID", count, "-j DROP")
	}
	w.filter.rule(chainForward, comment("kubernetes forwarding rules"), "-m mark --mark", w.mark+"/"+w.mark, "-j ACCEPT")
	w.filter.rule(chainForward, comment("kubernetes forwarding conntrack rule"), "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
}

// port writes one service port: first what leads to it, then its own chains.
func (w *writer) port(p *port) {
	w.entries(p)
	w.refusals(p)
	if p.hasInternal {
		w.internal(p)
	}
	if p.hasAny && p.accessible() {
		w.external(p)
	}
	if p.usesSources() {
		w.sources(p)
	}
	if len(p.cluster) > 0 && p.usesCluster() {
		w.balance(p, p.clusterChain, p.cluster)
	}
	if len(p.localOnly) > 0 && p.usesLocal() {
		w.balance(p, p.localChain, p.localOnly)
	}
	for _, e := range p.reachable {
		w.endpoint(p, e)
	}
}

// entries are the ways into the port's chains, all in table nat.
func (w *writer) entries(p *port) {
	to := func(what string, a netip.Addr, chain string) {
		w.nat.rule(chainServices, comment(p.name+" "+what), p.match(a.String(), p.number), "-j", chain)
	}
	if p.hasInternal {
		to("cluster IP", p.svc.ClusterIP, p.internalChain())
	}
	if !p.hasAny {
		return
	}
	for _, a := range p.external {
		to("external IP", a, p.externalChain)
	}
	for _, a := range p.balanced {
		if p.usesSources() {
			to("loadbalancer IP", a, p.sourceChain)
		} else {
			to("loadbalancer IP", a, p.externalChain)
		}
	}
	if p.nodePort == 0 {
		return
	}
	number := strconv.Itoa(p.nodePort)
	if w.LocalhostNodePorts && w.NFAcct {
		w.nat.rule(chainNodePorts, "-m comment --comment", p.name, p.match("127.0.0.0/8", number),
			"-m nfacct --nfacct-name", counterLocalhost, "-j", p.externalChain)
	}
	w.nat.rule(chainNodePorts, "-m comment --comment", p.name, p.match("", number), "-j", p.externalChain)
}

// refusals are the port's rules in table filter: what has no endpoint at all
// is rejected; what has none for this traffic policy is dropped.
func (w *writer) refusals(p *port) {
	why, verdict := comment(p.name+" has no local endpoints"), "-j DROP"
	if !p.hasAny {
		why, verdict = comment(p.name+" has no endpoints"), "-j REJECT"
	}
	if !p.hasInternal {
		w.filter.rule(chainServices, why, p.match(p.svc.ClusterIP.String(), p.number), verdict)
	}
	refuse := func(a netip.Addr) {
		if !p.hasExt {
			w.filter.rule(chainExternal, why, p.match(a.String(), p.number), verdict)
		}
	}
	for _, a := range p.external {
		refuse(a)
	}
	for _, a := range p.balanced {
		if p.usesSources() {
			w.filter.rule(chainLBFirewall, comment(p.name+" traffic not accepted by "+p.sourceChain),
				p.match(a.String(), p.number), "-j DROP")
		}
	}
	for _, a := range p.balanced {
		refuse(a)
	}
	if p.nodePort != 0 && !p.hasExt {
		w.filter.rule(chainExternal, why, "-m addrtype --dst-type LOCAL", p.match("", strconv.Itoa(p.nodePort)), verdict)
	}
	if p.healthCheckNodePort != 0 {
		w.filter.rule(chainNodePorts, comment(p.name+" health check node port"),
			"-m tcp -p tcp --dport", strconv.Itoa(p.healthCheckNodePort), "-j ACCEPT")
	}
}
