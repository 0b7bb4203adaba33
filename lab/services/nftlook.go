package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/nft"
	"slipway/topology"
)

// Names in kube-proxy's nftables table (upstream pkg/proxy/nftables/proxier.go).
const (
	mapServices   = "service-ips"
	mapNodePorts  = "service-nodeports"
	mapNoServices = "no-endpoint-services"
	mapNoPorts    = "no-endpoint-nodeports"
	mapFirewall   = "firewall-ips"
	chainReject   = "reject-chain"
	chainMasq     = "masquerading"
	chainDispatch = "services"
	affinitySets  = "affinity-"
)

// nftRoles tell chains of services by the beginning of their names.
var nftRoles = []struct {
	prefix string
	role   Role
}{
	{"service-", RoleCluster}, {"local-", RoleLocal}, {"external-", RoleExternal}, {"firewall-", RoleSources}, {"endpoint-", RoleEndpoint},
}

// proxyTable finds kube-proxy's nftables table; nil if there is none.
func proxyTable(st *datapath.NetState) (*datapath.NFTable, error) {
	if st.NFTables == "" {
		return nil, nil
	}
	tables, err := nft.Read([]byte(st.NFTables))
	if err != nil {
		return nil, err
	}
	for i := range tables {
		if tables[i].Family == "ip" && tables[i].Name == kubeproxy.NFTTable {
			return &tables[i], nil
		}
	}
	return nil, nil
}

// nftLooker finds one port's share of the table.
type nftLooker struct {
	snapshot *topology.Snapshot
	chains   map[string]*datapath.NFChain
	sets     map[string]*datapath.NFSet
	service  topology.Service
	port     topology.ServicePort
	view     PortView
}

func lookNFT(s *topology.Snapshot, f Found, t *datapath.NFTable) []PortView {
	k := nftLooker{snapshot: s, chains: map[string]*datapath.NFChain{}, sets: map[string]*datapath.NFSet{}, service: f.Service}
	for i := range t.Chains {
		k.chains[t.Chains[i].Name] = &t.Chains[i]
	}
	for i := range t.Sets {
		k.sets[t.Sets[i].Name] = &t.Sets[i]
	}
	out := []PortView{}
	for _, p := range f.Ports {
		k.port = p
		out = append(out, k.look())
	}
	return out
}

func (k *nftLooker) look() PortView {
	name := k.service.Key()
	if k.port.Name != "" {
		name += ":" + k.port.Name
	}
	k.view = PortView{Name: name, Protocol: strings.ToLower(string(k.port.Protocol)), Port: k.port.Port, Entries: []Entry{}, Chains: []ChainView{}, nft: true}
	for _, in := range []string{mapServices, mapNodePorts} {
		k.elements(in, func(via Via, addr netip.Addr, port int, r RuleView) {
			k.view.Entries = append(k.view.Entries, Entry{Via: via, Address: addr, Port: port, In: in, Rule: r})
		})
	}
	for _, in := range []string{mapNoServices, mapNoPorts, mapFirewall} {
		k.elements(in, func(via Via, addr netip.Addr, port int, r RuleView) {
			k.view.Refusals = append(k.view.Refusals, Refusal{Via: via, Address: addr, Port: port, In: in, Rule: r})
		})
	}
	for _, e := range k.view.Entries {
		k.follow(e.Rule.Target)
	}
	for _, r := range k.rulesOf(chainMasq) {
		k.view.Masquerade = append(k.view.Masquerade, k.rules(r)...)
	}
	for _, r := range k.rulesOf(chainDispatch) {
		for _, v := range k.rules(r) {
			if v.Does == "mark" {
				k.view.dispatch = append(k.view.dispatch, v)
			}
		}
	}
	return k.view
}

func (k *nftLooker) rulesOf(chain string) []datapath.NFRule {
	if c := k.chains[chain]; c != nil {
		return c.Rules
	}
	return nil
}

// elements finds the elements of a map that are about this port: by address and
// port, or by the name that kube-proxy gave the chain or the comment, so that
// one that is left of an older address is not passed over.
func (k *nftLooker) elements(in string, found func(Via, netip.Addr, int, RuleView)) {
	m := k.sets[in]
	if m == nil {
		return
	}
	base := fmt.Sprintf("/%s/%s/%s", k.service.Name, k.view.Protocol, k.port.Name)
	for _, e := range m.Elements {
		words := strings.Split(e.Key, " . ")
		n := len(words)
		port, err := strconv.Atoi(words[n-1])
		if err != nil || n < 2 || words[n-2] != k.view.Protocol {
			continue
		}
		verdict, target, _ := strings.Cut(e.Value, " ")
		named := e.Comment == k.view.Name || strings.HasSuffix(target, "-"+k.service.Namespace+base)
		addr, via := netip.Addr{}, ViaNodePort
		if n == 3 {
			if addr, err = netip.ParseAddr(words[0]); err != nil {
				continue
			}
			via = k.via(addr)
			if !named && (via == "" || port != k.port.Port) {
				continue
			}
			if via == "" {
				via = ViaClusterIP
			}
		} else if !named && port != k.port.NodePort {
			continue
		}
		found(via, addr, port, k.element(e, verdict, target))
	}
}

func (k *nftLooker) via(a netip.Addr) Via {
	switch {
	case a == k.service.ClusterIP:
		return ViaClusterIP
	case slices.Contains(k.service.ExternalIPs, a):
		return ViaExternalIP
	case slices.Contains(k.service.LoadBalancerIPs, a):
		return ViaLoadBalancer
	}
	return ""
}

// element is a map's element as a rule.
func (k *nftLooker) element(e datapath.NFElement, verdict, target string) RuleView {
	v := RuleView{Text: e.String(), Does: verdict}
	switch {
	case target == chainReject:
		v.Does = "reject"
	case verdict == "goto" || verdict == "jump":
		v.Does, v.Target = "jump", target
	}
	for _, r := range k.rulesOf(target) { // of the allowed sources
		if strings.HasPrefix(target, "firewall-") {
			v.Does, v.Target = "drop", ""
			for _, w := range k.rules(r) {
				v.When = append(v.When, w.When...)
			}
		}
	}
	return v
}

// follow adds a chain and what it leads to, each once.
func (k *nftLooker) follow(name string) {
	c := k.chains[name]
	if c == nil || k.view.Chain(name) != nil {
		return
	}
	at := len(k.view.Chains)
	k.view.Chains = append(k.view.Chains, ChainView{Name: name, Role: roleOf(name), Rules: []RuleView{}})
	var rules []RuleView
	for _, r := range c.Rules {
		rules = append(rules, k.rules(r)...)
	}
	k.view.Chains[at].Rules = rules
	for _, r := range rules {
		if r.Does == "jump" {
			k.follow(r.Target)
		}
	}
}
