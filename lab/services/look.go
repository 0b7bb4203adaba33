package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slipway/datapath/kubeproxy"
	"slipway/topology"
)

// kube-proxy's chains (upstream pkg/proxy/iptables/proxier.go).
const (
	chainServices    = "KUBE-SERVICES"
	chainExternal    = "KUBE-EXTERNAL-SERVICES"
	chainNodePorts   = "KUBE-NODEPORTS"
	chainPostrouting = "KUBE-POSTROUTING"
	chainMark        = "KUBE-MARK-MASQ"
	chainFirewall    = "KUBE-PROXY-FIREWALL"
)

// roles tell chains by the beginning of their names.
var roles = []struct {
	prefix string
	role   Role
}{
	{"KUBE-SVC-", RoleCluster}, {"KUBE-SVL-", RoleLocal}, {"KUBE-EXT-", RoleExternal},
	{"KUBE-FW-", RoleSources}, {"KUBE-SEP-", RoleEndpoint},
}

func roleOf(chain string) Role {
	for _, r := range roles {
		if strings.HasPrefix(chain, r.prefix) {
			return r.role
		}
	}
	if strings.Contains(chain, "/") { // which no other chain of the nftables mode has
		for _, r := range nftRoles {
			if strings.HasPrefix(chain, r.prefix) {
				return r.role
			}
		}
	}
	return RoleOther
}

// MissingError says that a node has none of kube-proxy's chains at all; Chain is
// empty if it is the nftables table that is not there.
type MissingError struct{ Node, Chain string }

// Error names the chain.
func (e *MissingError) Error() string {
	if e.Chain == "" {
		return fmt.Sprintf("node %s has no nftables table ip kube-proxy: kube-proxy's rules are not loaded there (`slipway status` says what is missing)", e.Node)
	}
	return fmt.Sprintf("node %s has no chain %s in table nat: kube-proxy's rules are not loaded there (`slipway status` says what is missing)", e.Node, e.Chain)
}

// Look finds the rules of a service's ports in a node's rules.
func Look(s *topology.Snapshot, f Found, l *Loaded) (*View, error) {
	v := &View{Lab: s.Lab, Mode: string(s.Proxy.Mode), Service: f.Service.Key(), Type: string(f.Service.Type), Node: l.Node, Program: l.Program, Ports: []PortView{}}
	if s.Proxy.Mode == topology.ProxyNFTables {
		if l.NFT == nil {
			return nil, &MissingError{Node: l.Node}
		}
		v.Ports = lookNFT(s, f, l.NFT)
		return v, nil
	}
	nat := l.Rules.Table("nat")
	if nat == nil || nat.Chain(chainServices) == nil {
		return nil, &MissingError{Node: l.Node, Chain: chainServices}
	}
	for _, p := range f.Ports {
		k := &looker{snapshot: s, rules: &l.Rules, nat: nat, service: f.Service, port: p}
		v.Ports = append(v.Ports, k.look())
	}
	return v, nil
}

// looker finds the rules of one port.
type looker struct {
	snapshot *topology.Snapshot
	rules    *kubeproxy.Ruleset
	nat      *kubeproxy.Table
	service  topology.Service
	port     topology.ServicePort
	view     PortView
}

func (k *looker) look() PortView {
	name := k.service.Key()
	if k.port.Name != "" {
		name += ":" + k.port.Name
	}
	k.view = PortView{Name: name, Protocol: strings.ToLower(string(k.port.Protocol)), Port: k.port.Port, Entries: []Entry{}, Chains: []ChainView{}}
	for _, in := range []string{chainServices, chainNodePorts} {
		for _, r := range rulesOf(k.nat, in) {
			if via, addr, port, ok := k.about(in, r); ok {
				k.view.Entries = append(k.view.Entries, Entry{Via: via, Address: addr, Port: port, In: in, Rule: k.rule(r, ruleContext{entry: true})})
			}
		}
	}
	if filter := k.rules.Table("filter"); filter != nil {
		for _, in := range []string{chainServices, chainExternal, chainNodePorts, chainFirewall} {
			for _, r := range rulesOf(filter, in) {
				if via, addr, port, ok := k.about(in, r); ok {
					k.view.Refusals = append(k.view.Refusals, Refusal{Via: via, Address: addr, Port: port, In: in, Rule: k.rule(r, ruleContext{entry: true})})
				}
			}
		}
	}
	for _, e := range k.view.Entries {
		k.follow(e.Rule.Target)
	}
	for _, r := range rulesOf(k.nat, chainPostrouting) {
		k.view.Masquerade = append(k.view.Masquerade, k.rule(r, ruleContext{}))
	}
	return k.view
}

func rulesOf(t *kubeproxy.Table, chain string) []kubeproxy.Rule {
	if c := t.Chain(chain); c != nil {
		return c.Rules
	}
	return nil
}

// about says whether a rule of an entry chain is for this port: by what it
// matches, or by kube-proxy's comment, so that a rule that is left of an older
// address is not passed over.
func (k *looker) about(in string, r kubeproxy.Rule) (via Via, addr netip.Addr, port int, ok bool) {
	dst, _ := header(r, "-d")
	if dst != "" {
		p, err := netip.ParsePrefix(dst)
		if err != nil || !p.IsSingleIP() {
			return "", netip.Addr{}, 0, false
		}
		addr = p.Addr()
	}
	proto, _ := header(r, "-p")
	port = dport(r)
	if port == 0 || proto != strings.ToLower(string(k.port.Protocol)) {
		return "", netip.Addr{}, 0, false
	}
	comment := r.Comment()
	named := comment == k.view.Name || strings.HasPrefix(comment, k.view.Name+" ")
	v := k.service
	switch {
	case !addr.IsValid():
		return ViaNodePort, addr, port, named || k.port.NodePort == port && (in == chainNodePorts || isLocalOnly(r))
	case addr == v.ClusterIP:
		via = ViaClusterIP
	case slices.Contains(v.ExternalIPs, addr):
		via = ViaExternalIP
	case slices.Contains(v.LoadBalancerIPs, addr):
		via = ViaLoadBalancer
	case named:
		return viaOfComment(comment), addr, port, true
	default:
		return "", netip.Addr{}, 0, false
	}
	return via, addr, port, port == k.port.Port
}

// viaOfComment reads the end of kube-proxy's comment.
func viaOfComment(comment string) Via {
	switch {
	case strings.HasSuffix(comment, " external IP"):
		return ViaExternalIP
	case strings.HasSuffix(comment, " loadbalancer IP"):
		return ViaLoadBalancer
	default:
		return ViaClusterIP
	}
}

func isLocalOnly(r kubeproxy.Rule) bool {
	for _, m := range r.Matches {
		if o, ok := m.Option("--dst-type"); ok && o.Value() == "LOCAL" && !o.Not {
			return true
		}
	}
	return false
}

// header finds a header option's value; not tells of a "!".
func header(r kubeproxy.Rule, name string) (value string, not bool) {
	for _, o := range r.Header {
		if o.Name == name {
			return o.Value(), o.Not
		}
	}
	return "", false
}

// dport is the single destination port that a rule matches, zero if it is not one.
func dport(r kubeproxy.Rule) int {
	for _, m := range r.Matches {
		if o, ok := m.Option("--dport"); ok && !o.Not {
			n, err := strconv.Atoi(o.Value())
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// follow adds a chain and what it leads to, each once.
func (k *looker) follow(name string) {
	c := k.nat.Chain(name)
	if c == nil || name == chainMark || k.view.Chain(name) != nil {
		return
	}
	at := len(k.view.Chains)
	k.view.Chains = append(k.view.Chains, ChainView{Name: name, Role: roleOf(name), Rules: []RuleView{}})
	branches, _ := kubeproxy.Probabilities(*k.rules, name) // the chain is there
	shared := slices.ContainsFunc(branches, func(b kubeproxy.Branch) bool { return !b.Unknown })
	var rules []RuleView
	for _, r := range c.Rules {
		ctx := ruleContext{}
		if len(branches) > 0 && branches[0].Rule.Raw == r.Raw {
			ctx.branch, branches = &branches[0], branches[1:]
			ctx.shared = shared && roleOf(ctx.branch.Target) == RoleEndpoint
		}
		rules = append(rules, k.rule(r, ctx))
	}
	markLast(rules)
	k.view.Chains[at].Rules = rules
	for _, r := range rules {
		if r.Does == "jump" {
			k.follow(r.Target)
		}
	}
}

// markLast marks the rule that takes what the tosses before it left.
func markLast(rules []RuleView) {
	var balanced []*RuleView
	for i := range rules {
		if rules[i].balanced {
			balanced = append(balanced, &rules[i])
		}
	}
	if n := len(balanced); n > 1 {
		balanced[n-1].Last = *balanced[n-1].Own == 1
	}
}
